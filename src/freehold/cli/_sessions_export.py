"""`freehold sessions export`: sessions as recorded, whole, to be kept elsewhere: one, or all there are."""

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final, get_args

import click
from rich.markup import escape

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Command
from freehold.cli._output import counted
from freehold.client.client import Client
from freehold.client.errors import ApiError
from freehold.core.response_facts import SessionKind

KINDS: Final[tuple[str, ...]] = get_args(SessionKind)
NOT_FOUND: Final = 404


@click.command(cls=Command)
@click.argument("session_id", required=False)
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write it there. Default: to standard output.",
)
@click.option(
    "--all",
    "folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write all that there are into FOLDER, a file each, with kept responses and conversations.",
)
@click.option("--kind", type=click.Choice(KINDS), help="With --all: only those.")
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    *,
    session_id: str | None,
    path: Path | None,
    folder: Path | None,
    kind: str | None,
    as_json: bool,
) -> None:
    """Write a session of any kind as recorded, whole, as lines of JSON: an agent's for `replay --file` and `diff`."""
    chosen = settings(ctx)
    if (session_id is None) == (folder is None):
        raise click.UsageError("name a session, or a folder for all of them with --all")
    if folder is not None and path is not None:
        raise click.UsageError("--all writes a file for each: leave out --file")
    if kind is not None and folder is None:
        raise click.UsageError("--kind goes with --all: a session's id says what kind it is")
    with connected(chosen) as client:
        if folder is not None:
            counts = {one: _every(client, one, folder) for one in ([kind] if kind else KINDS)}
            told = ", ".join(
                counted(count, f"{one} session", f"{one} sessions") for one, count in counts.items()
            )
            chosen.output.done(counts, f"wrote {told} to {escape(str(folder))}")
            return
        lines = _lines(client, f"{session_id}")
        if path is None:
            for line in lines:
                sys.stdout.write(line.decode() + "\n")
            sys.stdout.flush()
            return
        _write(lines, path, "--file")
    chosen.output.say(f"wrote {escape(str(path))}")


def _every(client: Client, kind: str, folder: Path) -> int:
    """How many there are. Those that come meanwhile may be among them; one that is deleted meanwhile is not."""
    count = 0
    query = {"kind": kind, "include_archived": True, "limit": 100}
    for one in client.pages("/v1/sessions", query=query):
        try:
            _write(_lines(client, one["id"]), folder / kind / f"{one['id']}.jsonl", "--all")
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
        else:
            count += 1
    return count


def _lines(client: Client, session_id: str) -> Iterator[bytes]:
    return client.lines("GET", f"/v1/sessions/{session_id}/export")


def _write(lines: Iterator[bytes], path: Path, option: str) -> None:
    first = next(lines)  # What is refused leaves no file.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.writelines(line + b"\n" for line in chain((first,), lines))
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be written: {error.strerror}", param_hint=option) from error
