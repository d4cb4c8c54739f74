"""`freehold serve`: the server, until it is told to stop."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Struct

from freehold import __version__
from freehold.app import House, open_house, write_private
from freehold.cli._connection import ServerFile, settings
from freehold.cli._group import Command
from freehold.cli._output import Output
from freehold.cli._running import CLOSING_S_MAX, Stop, collect_seldom, listen, loop_factory, open_many
from freehold.cli._tls import SELF_SIGNED, certificate
from freehold.config import Config, read_config
from freehold.server import listener as http
from freehold.telemetry import logging as log_lines

log = logging.getLogger(__name__)


class Addresses(Struct, frozen=True):
    """`ca_file` is what clients of `tls_url` must trust, where its certificate was made here."""

    url: str
    tls_url: str | None = None
    ca_file: Path | None = None


Announce = Callable[[Addresses, House], None]
"""Is told the addresses when the server takes connections."""


@click.command(cls=Command)
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one. [default: 8484]")
@click.option(
    "--tls",
    type=click.Choice([SELF_SIGNED]),
    help="Serve HTTPS too, with a certificate made here for this machine.",
)
@click.option("--tls-cert", metavar="FILE", help="Serve HTTPS too: certificate chain, PEM.")
@click.option("--tls-key", metavar="FILE", help="Its private key, PEM.")
@click.option("--tls-port", type=click.IntRange(0, 65535), help="Port of HTTPS. [default: 8485]")
@click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file instead of DATA/freehold.toml.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--no-worker", is_flag=True, help="Leave sessions and batches to `freehold worker`.")
@click.option(
    "--until-stdin-closes", is_flag=True, hidden=True, help="Stop when whoever started this is gone."
)
@click.pass_context
def serve(
    ctx: click.Context,
    *,
    host: str | None,
    port: int | None,
    tls: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_port: int | None,
    file: Path | None,
    log_level: str | None,
    no_worker: bool,
    until_stdin_closes: bool,
) -> None:
    """Run the server.

    Without DATABASE_URL it starts a PostgreSQL of its own in the data folder. At the very first start it makes an API key
    and prints it, once.
    """
    chosen = settings(ctx)
    options: dict[tuple[str, ...], Any] = {
        ("server", "host"): host,
        ("server", "port"): port,
        ("server", "tls"): tls,
        ("server", "tls_cert"): tls_cert,
        ("server", "tls_key"): tls_key,
        ("server", "tls_port"): tls_port,
        ("log", "level"): log_level,
    }
    config = read_config(data_folder=chosen.data_folder, file=file, options=options)
    log_lines.configure(config.log.level, config.log.format)
    announce = partial(_show_first_key if until_stdin_closes else _announce, config, chosen.output)
    run(config, announce, until_stdin_closes=until_stdin_closes, works=not no_worker)


def run(
    config: Config,
    announce: Announce,
    *,
    until_stdin_closes: bool = False,
    throwaway: bool = False,
    works: bool = True,
) -> None:
    """Serves until SIGINT or SIGTERM; running turns finish their step or are handed back."""
    open_many()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        work = _serve(
            config, announce, until_stdin_closes=until_stdin_closes, throwaway=throwaway, works=works
        )
        runner.run(work)


async def _serve(
    config: Config, announce: Announce, *, until_stdin_closes: bool, throwaway: bool, works: bool
) -> None:
    stop = Stop(config.server.drain_s + CLOSING_S_MAX)
    with stop.heard(stdin=until_stdin_closes), contextlib.ExitStack() as stack:
        listening = stack.enter_context(
            listen(config.server.host, config.server.port, "--port", backlog=http.BACKLOG)
        )
        tls = _listen_tls(config, stack)
        async with open_house(config, throwaway=throwaway, works=works) as house:
            log_lines.configure(config.log.level, config.log.format, redact=house.redact)
            with _announced(config, house, _reachable(listening, tls), announce):
                stop.ready = True
                collect_seldom()
                log.info("server.started", extra={"version": __version__, "pid": os.getpid()})
                await http.serve(house.app, listening, stop.asked, tls=tls)
        log.info("server.stopped", extra={"pid": os.getpid()})


def _listen_tls(config: Config, stack: contextlib.ExitStack) -> http.Tls | None:
    found = certificate(config)
    if found is None:
        return None
    server = config.server
    listening = listen(server.host, server.tls_port, "--tls-port", backlog=http.BACKLOG)
    return http.Tls(stack.enter_context(listening), found)


def _reachable(listening: socket.socket, tls: http.Tls | None) -> Addresses:
    if tls is None:
        return Addresses(_url("http", listening))
    return Addresses(_url("http", listening), _url("https", tls.listening), tls.certificate.ca)


def _url(scheme: str, listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


@contextlib.contextmanager
def _announced(config: Config, house: House, at: Addresses, announce: Announce) -> Iterator[None]:
    """Writes `server.json` while the server runs, and tells whoever started it."""
    path = config.data_folder / "server.json"
    ca_file = None if at.ca_file is None else str(at.ca_file)
    told = ServerFile(at.url, os.getpid(), house.operator_key, at.tls_url, ca_file)
    write_private(path, msgspec.json.encode(told))
    announce(at, house)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _show_first_key(_config: Config, output: Output, _at: Addresses, house: House) -> None:
    if house.first_key is not None:
        output.note.print(f"[bold]Your first API key, shown this once:[/bold] {house.first_key}")


def _announce(config: Config, output: Output, at: Addresses, house: House) -> None:
    _show_first_key(config, output, at, house)
    addresses = at.url if at.tls_url is None else f"{at.url} and {at.tls_url}"
    output.progress(f"Freehold listens on {addresses} (data in {config.data_folder}); Ctrl-C stops it")
    if at.ca_file is not None:
        output.progress(
            f"For HTTPS, clients must trust {at.ca_file} (SSL_CERT_FILE, AWS_CA_BUNDLE, NODE_EXTRA_CA_CERTS)"
        )
