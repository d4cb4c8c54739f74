"""`freehold data`: put data where agents can read it: key-value tables and objects."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

import click

from freehold.cli._connection import connected, json_option, settings
from freehold.cli._group import Commands
from freehold.cli._output import counted
from freehold.client.client import Client

ITEMS_PER_REQUEST: Final = 5_000
FILES_MAX: Final = 200_000
FILES_PER_ARCHIVE: Final = 5_000
ARCHIVE_BYTES: Final = 16_000_000


@click.group(cls=Commands)
def data() -> None:
    """Put data where agents can read it: tables and objects."""


@data.command("put-items")
@click.argument("table")
@click.argument("file", type=click.File("rb", lazy=True))
@json_option
@click.pass_context
def put_items(ctx: click.Context, *, table: str, file: BinaryIO, as_json: bool) -> None:
    """Write the lines of FILE ({"key": ..., "value": ...}) into TABLE; - reads standard input."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        count = upload_items(client, table, iter(file))
    chosen.output.done({"count": count}, f"{counted(count, 'item')} written to {table}")


@data.command("put-objects")
@click.argument("prefix")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
@click.pass_context
def put_objects(ctx: click.Context, *, prefix: str, folder: Path, as_json: bool) -> None:
    """Write every file below FOLDER as an object PREFIX/path."""
    chosen = settings(ctx)
    with connected(chosen) as client:
        count = upload_objects(client, prefix, folder)
    chosen.output.done({"count": count}, f"{counted(count, 'object')} written below {prefix}")


def upload_items(client: Client, table: str, lines: Iterator[bytes]) -> int:
    count, batch = 0, list[bytes]()
    for line in lines:
        batch.append(line.rstrip(b"\n"))
        if len(batch) == ITEMS_PER_REQUEST:
            count += _put(client, table, batch)
            batch = []
    return count + (_put(client, table, batch) if batch else 0)


def _put(client: Client, table: str, batch: list[bytes]) -> int:
    written: int = client.request(
        "PUT", f"/v1/tables/{quote(table, safe='')}/items", content=b"\n".join(batch)
    )["count"]
    return written


def upload_objects(client: Client, prefix: str, folder: Path) -> int:
    """In archives of some megabytes: a request for each of thousands of small files would take most of a minute."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if len(files) > FILES_MAX:
        raise click.UsageError(
            f"{folder} holds {len(files):,} files; {FILES_MAX:,} at most go in one command"
        )
    base = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    for archive in _archives(files, folder):
        client.request("PUT", "/v1/objects", content=archive, query={"prefix": base})
    return len(files)


def _archives(files: list[Path], folder: Path) -> Iterator[bytes]:
    """Each of ARCHIVE_BYTES at most, unless a single file is larger."""
    waiting = files
    while waiting:
        buffer, taken = io.BytesIO(), 0
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in waiting[:FILES_PER_ARCHIVE]:
                content = path.read_bytes()
                if taken and buffer.tell() + len(content) > ARCHIVE_BYTES:
                    break
                member = tarfile.TarInfo(path.relative_to(folder).as_posix())
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
                taken += 1
        waiting = waiting[taken:]
        yield buffer.getvalue()
