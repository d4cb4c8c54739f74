"""`freehold dev`: a throwaway server for applications' own tests. One JSON line says where it is; nothing is left behind."""

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from freehold.app import House
from freehold.cli._connection import settings
from freehold.cli._group import Command
from freehold.cli._tls import SELF_SIGNED
from freehold.cli.serve import Addresses, run
from freehold.config import read_config
from freehold.core.errors import Internal
from freehold.telemetry import logging as log_lines

WIRES: Final = {"openai": "openai_chat", "anthropic": "anthropic_messages", "bedrock": "bedrock_converse"}


@click.command(cls=Command)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: a free one.")
@click.option(
    "--upstream",
    "upstreams",
    multiple=True,
    metavar="NAME=URL",
    help="Where calls through NAME's SDK (openai, anthropic, bedrock) go, as that SDK takes its address; repeatable.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning")
@click.pass_context
def dev(ctx: click.Context, *, port: int, upstreams: tuple[str, ...], log_level: str) -> None:
    """Run a throwaway server in a temporary folder, for tests.

    Prints one line of JSON when it is ready: base_url; tls_base_url and the ca_file to trust for it; api_key; and for AWS's SDKs
    access_key_id and secret_access_key. Serves until it is stopped (SIGINT, SIGTERM) and removes what it made. Every model's
    name goes to the upstream of the SDK that asks, unless it says provider/name.

    \b
      freehold dev --upstream openai=http://127.0.0.1:9999/v1
    """
    chosen = settings(ctx)
    addresses = _addresses(upstreams)
    options: dict[tuple[str, ...], Any] = {
        ("server", "host"): "127.0.0.1",
        ("server", "port"): port,
        ("server", "tls"): SELF_SIGNED,
        ("server", "tls_port"): 0,
        ("log", "level"): log_level,
        ("models", "discover_local"): False,
        ("models", "upstreams"): {WIRES[name]: url for name, url in addresses.items()},
    }
    # Until the server hears it itself, it would end the process at once, and the folder would stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="freehold-dev-", ignore_cleanup_errors=True) as folder:
        config = read_config(data_folder=Path(folder), options=options, environment=_environment())
        log_lines.configure(config.log.level, config.log.format)
        run(config, lambda at, house: chosen.output.json_line(_told(at, house)), throwaway=True)


def _environment() -> dict[str, str]:
    """Without what would lead a throwaway server to a database or to settings that are somebody's."""
    return {
        name: value
        for name, value in os.environ.items()
        if name != "DATABASE_URL" and not name.startswith("FREEHOLD_")
    }


def _told(at: Addresses, house: House) -> dict[str, str]:
    """Its data folder is new, so there is a first key."""
    if house.first_key is None or house.first_pair is None:
        raise Internal("a server in a new folder has made no key")
    return {
        "base_url": at.url,
        "tls_base_url": at.tls_url or "",
        "ca_file": str(at.ca_file or ""),
        "api_key": house.first_key,
        "access_key_id": house.first_pair.access_key_id,
        "secret_access_key": house.first_pair.secret_access_key,
    }


def _addresses(given: tuple[str, ...]) -> dict[str, str]:
    known = [*WIRES]
    found: dict[str, str] = {}
    for one in given:
        name, equals, url = one.partition("=")
        if not equals or name not in known:
            raise click.UsageError(
                f"--upstream takes NAME=URL with NAME one of {', '.join(known)}; got {one!r}"
            )
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise click.UsageError(f"--upstream {name}: expected http://... or https://..., got {url!r}")
        if name in found:
            raise click.UsageError(f"--upstream {name} is given twice")
        found[name] = url
    return found
