"""`freehold worker`: carries sessions and batches forward, without a door, until it is told to stop."""

import asyncio
import contextlib
import logging
import os
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from freehold import __version__
from freehold.app import Workshop, open_workshop
from freehold.cli._connection import settings
from freehold.cli._group import Command
from freehold.cli._health_port import health_port
from freehold.cli._running import CLOSING_S_MAX, Stop, collect_seldom, listen, loop_factory
from freehold.config import Config, read_config
from freehold.core.errors import Unavailable
from freehold.telemetry import logging as log_lines

SOCKET_LOOK_S: Final = 1.0

log = logging.getLogger(__name__)


@click.command(cls=Command)
@click.option(
    "--health-port",
    type=click.IntRange(0, 65535),
    help="Answer GET /healthz and /readyz on this port of --health-host; 0 takes a free one. [default: none]",
)
@click.option("--health-host", default="127.0.0.1", show_default=True, help="Address for --health-port.")
@click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file instead of DATA/freehold.toml.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.pass_context
def worker(
    ctx: click.Context, *, health_port: int | None, health_host: str, file: Path | None, log_level: str | None
) -> None:
    """Carry sessions and batches forward, beside a server or on another machine.

    Works on the database that DATABASE_URL names, with as many other workers as there are; without it, on that of the
    server that runs on the data folder. SIGTERM lets running steps end (server.drain_s) and hands their sessions back.
    """
    chosen = settings(ctx)
    config = read_config(data_folder=chosen.data_folder, file=file, options={("log", "level"): log_level})
    log_lines.configure(config.log.level, config.log.format)
    with contextlib.ExitStack() as stack, asyncio.Runner(loop_factory=loop_factory()) as runner:
        door = None if health_port is None else listen(health_host, health_port, "--health-port")
        if door is not None:
            stack.enter_context(door)
            host, port = door.getsockname()[:2]
            chosen.output.progress(f"Health on http://{host}:{port}/healthz and /readyz")
        runner.run(_work(config, door, chosen.output.progress))


async def _work(config: Config, door: Any, say: Any) -> None:
    stop = Stop(config.server.drain_s + CLOSING_S_MAX)
    with stop.heard(stdin=False):
        async with open_workshop(config) as shop, health_port(door, partial(_look, shop)):
            log_lines.configure(config.log.level, config.log.format, redact=shop.redact)
            stop.ready = True
            collect_seldom()
            log.info(
                "worker.started",
                extra={"version": __version__, "pid": os.getpid(), "worker": shop.worker.owner},
            )
            say(f"Worker {shop.worker.owner} carries sessions forward; Ctrl-C stops it")
            await _until_stopped(stop, shop.database_socket)
            shop.worker.stop()
            await shop.worker.stopped()
        log.info("worker.stopped", extra={"pid": os.getpid()})


async def _until_stopped(stop: Stop, socket: Path | None) -> None:
    """Raises Unavailable when the embedded PostgreSQL is gone: its next start has another socket."""
    while not stop.asked.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SOCKET_LOOK_S):
                await stop.asked.wait()
        if socket is not None and not await asyncio.to_thread(socket.exists):
            raise Unavailable(
                "The server on this data folder has stopped, and its database with it: start it, then this."
            )


async def _look(shop: Workshop, path: str) -> tuple[bool, dict[str, object]] | None:
    """Alive is whoever answers; ready, who takes work."""
    told: dict[str, object] = {
        "worker": shop.worker.owner,
        "version": __version__,
        "sessions": shop.worker.busy_count,
    }
    match path:
        case "/healthz":
            health = await shop.health.look()
            return True, told | {"status": health.status, "checks": health.checks}
        case "/readyz":
            trouble = shop.worker.trouble
            return not trouble, told | {"status": trouble or "ok"}
        case _:
            return None
