"""`freehold dev`: a throwaway server for applications' own tests. One JSON line says where it is; nothing is left behind."""

import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from freehold.app import House
from freehold.cli._connection import settings
from freehold.cli.serve import run
from freehold.config import read_config
from freehold.telemetry import logging as log_lines

WIRES: Final = {"openai": "openai_chat", "anthropic": "anthropic_messages"}
AWAITED: Final = "bedrock"
"""Taken, so that a command line for all three stays the same, and said aloud not to be served yet."""


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: a free one.")
@click.option(
    "--upstream",
    "upstreams",
    multiple=True,
    metavar="NAME=URL",
    help="Where calls through NAME's SDK (openai, anthropic) go, as that SDK takes its base_url; repeatable.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning")
@click.pass_context
def dev(ctx: click.Context, *, port: int, upstreams: tuple[str, ...], log_level: str) -> None:
    """Run a throwaway server in a temporary folder, for tests.

    Prints one line of JSON when it is ready: base_url, api_key, access_key_id, secret_access_key. Serves until it is stopped
    (SIGINT, SIGTERM) and removes what it made. Every model's name goes to the upstream of the SDK that asks, unless it says
    provider/name.

    \b
      freehold dev --upstream openai=http://127.0.0.1:9999/v1
    """
    chosen = settings(ctx)
    addresses = _addresses(upstreams)
    if addresses.pop(AWAITED, None):
        chosen.output.warn(
            f"--upstream {AWAITED}: Freehold has no {AWAITED} wire yet, so nothing is sent there"
        )
    options: dict[tuple[str, ...], Any] = {
        ("server", "host"): "127.0.0.1",
        ("server", "port"): port,
        ("log", "level"): log_level,
        ("models", "discover_local"): False,
        ("models", "upstreams"): {WIRES[name]: url for name, url in addresses.items()},
    }
    folder = Path(tempfile.mkdtemp(prefix="freehold-dev-"))
    try:
        config = read_config(data_folder=folder, options=options, environment=_environment())
        log_lines.configure(config.log.level, config.log.format)
        run(config, lambda url, house: chosen.output.json_line(_told(url, house)), throwaway=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    """Without what would lead a throwaway server to a database or to settings that are somebody's."""
    return {
        name: value
        for name, value in os.environ.items()
        if name != "DATABASE_URL" and not name.startswith("FREEHOLD_")
    }


def _told(url: str, house: House) -> dict[str, str]:
    """The last two are reserved for AWS's dialect: random, and so far of no use."""
    return {
        "base_url": url,
        "api_key": house.first_key or house.operator_key,
        "access_key_id": f"AKIA{secrets.token_hex(8).upper()}",
        "secret_access_key": secrets.token_urlsafe(30),
    }


def _addresses(given: tuple[str, ...]) -> dict[str, str]:
    known = [*WIRES, AWAITED]
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
