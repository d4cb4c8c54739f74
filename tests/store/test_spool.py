"""The spool: records outlive the process that made them, whatever its end tears, and are counted once."""

import asyncio
import os
import signal
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests._waiting import eventually
from tests.store._proxy import Proxy, proxied
from tests.store.conftest import Opens
from tests.store.test_records import record

from freehold.core.errors import Unavailable
from freehold.store import records as records_module
from freehold.store import spool as spooling
from freehold.store.spool import SEGMENT_MARK, open_spool, read_entries
from freehold.store.store import Store

CHILD = """
import asyncio, sys
from pathlib import Path
from freehold.store.store import open_store
from tests.store.test_records import record

async def main():
    url, folder, start = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    async with open_store(url, objects=None, process_id="child", spool_folder=folder) as store:
        number = start
        while True:
            store.records.add(record(number, cost_pico=number))
            sys.stdout.write(f"{number}\\n")
            sys.stdout.flush()
            number += 1
            await asyncio.sleep(0 if number % 50 else 0.001)

asyncio.run(main())
"""


def files(folder: Path, ending: str = "records") -> list[Path]:
    return sorted(folder.glob(f"*.{ending}"))


def encoded(number: int) -> bytes:
    return msgspec.msgpack.encode(record(number))


@given(payloads=st.lists(st.binary(min_size=1, max_size=200), max_size=12), data=st.data())
def test_a_segment_cut_anywhere_gives_every_entry_before_the_cut(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = SEGMENT_MARK
    with open_spool(folder) as spool:
        for payload in payloads:
            assert spool.append(payload) is not None
        if payloads:
            whole = files(folder)[0].read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    (folder / "torn").write_bytes(whole[:cut] + bytes(data.draw(st.sampled_from([0, 0, 5, 4096]))))
    entries = read_entries(folder / "torn")
    ends = list(accumulate((8 + len(one) for one in payloads), initial=len(SEGMENT_MARK)))
    complete = sum(end <= cut for end in ends[1:])
    assert entries.payloads[:complete] == tuple(payloads[:complete])
    # Zeros behind the cut may be what was cut off.
    assert set(entries.payloads[complete:]) <= {payloads[complete]} if complete < len(payloads) else True
    assert entries.damaged_count <= (cut < len(SEGMENT_MARK))


def test_an_entry_that_was_changed_is_told_apart_from_one_that_was_cut(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        for payload in (b"first", b"second", b"third"):
            spool.append(payload)
        (path,) = files(tmp_path)
        changed = path.read_bytes().replace(b"second", b"secund")
        (tmp_path / "changed").write_bytes(changed)
    entries = read_entries(tmp_path / "changed")
    assert entries == spooling.Entries((b"first", b"third"), 0, 1)


def test_segments_go_when_their_entries_have_arrived_and_stay_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooling, "SEGMENT_BYTES", 100)
    with open_spool(tmp_path) as spool:
        segments = [spool.append(bytes(30)) for _ in range(10)]
        assert len(files(tmp_path)) == 5
        for segment in segments[:-1]:
            assert segment is not None
            spool.settle(segment)
        spooling.remove(spool.done())
        assert len(files(tmp_path)) == 1
        assert segments[-1] is not None
        spool.settle(segments[-1])
        assert spool.size_bytes == len(SEGMENT_MARK)
        spool.append(b"late")
    assert len(files(tmp_path)) == 1
    with open_spool(tmp_path) as other:
        (leftover,) = other.leftovers()
        assert read_entries(leftover.segments[0]).payloads == (b"late",)
        assert other.leftovers() == []
        other.release(leftover)
        (again,) = other.leftovers()
        again.segments[0].unlink()
        other.release(again)
    assert {one.name for one in tmp_path.iterdir()} == {"spool.id", "spool.lock"}


def test_a_disk_that_is_full_leaves_no_half_an_entry(tmp_path: Path) -> None:
    """A file size limit stands in for the disk: writes are cut short in the same way."""
    program = f"""
import resource, signal
from pathlib import Path
from freehold.store.spool import open_spool, read_entries
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open_spool(Path({str(tmp_path)!r})) as spool:
    assert spool.append(b"x" * 80)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, resource.RLIM_INFINITY))
    assert spool.append(b"y" * 80) is None
    assert spool.fault, spool.fault
    (path,) = Path({str(tmp_path)!r}).glob("*.records")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert spool.append(b"z" * 80)
    assert spool.fault is None
    assert read_entries(path).payloads == (b"x" * 80, b"z" * 80)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
async def test_records_outlive_sigkill_and_are_counted_once(
    store: Store, store_url: str, opened: Opens, tmp_path: Path
) -> None:
    """Twice: with a database that takes batches meanwhile, and with one that is away the whole time."""
    told: list[int] = []
    async with proxied(store_url) as away:
        for start, url in ((0, store_url), (1_000_000, away.url)):
            command = [sys.executable, "-c", CHILD, url, str(tmp_path / "killed"), str(start)]
            child = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, env=dict(os.environ, PYTHONPATH=os.getcwd())
            )
            assert child.stdout is not None
            told.append(int(await child.stdout.readline()))
            if url == away.url:
                away.cut()
            while told[-1] < start + 700:
                told.append(int(await child.stdout.readline()))
            child.send_signal(signal.SIGKILL)
            told += [
                int(line)
                for line in (await child.stdout.read()).splitlines(keepends=True)
                if line.endswith(b"\n")
            ]
            await child.wait()
    assert files(tmp_path / "killed")
    _a_segment_whose_removal_the_crash_forestalled(tmp_path / "killed")

    async with opened("next", spool_folder=tmp_path / "killed"):
        await eventually(lambda: not files(tmp_path / "killed"))
    kept = await store.database.fetch(
        "t", "SELECT count(*) AS calls, sum(cost_pico)::bigint AS cost FROM call_records"
    )
    days = await store.database.fetch(
        "t", "SELECT sum(calls)::bigint AS calls, sum(cost_pico)::bigint AS cost FROM call_days"
    )
    missing = await store.database.fetch(
        "t",
        "SELECT n FROM unnest($1::bigint[]) AS n WHERE NOT EXISTS (SELECT FROM call_records WHERE cost_pico = n)",
        told,
    )
    assert missing == []
    assert dict(kept[0]) == dict(days[0])
    assert len(told) <= kept[0]["calls"] <= len(told) + 2, "one a child may have been made and not told"


def _a_segment_whose_removal_the_crash_forestalled(folder: Path) -> None:
    """Killed after the database had it: the same entries once more, under an owner that has ended."""
    first = files(folder)[0]
    (folder / f"0.{first.name.split('.', 1)[1]}").write_bytes(first.read_bytes() + b"\x40\0\0\0torn")
    (folder / "0.lock").touch()


async def test_a_live_process_is_left_alone(opened: Opens, store_url: str, tmp_path: Path) -> None:
    async with proxied(store_url) as away, opened("first", url=away.url) as first:
        away.cut()
        first.records.add(record(1))
        async with opened("second") as second:
            second.records.add(record(2))
            await second.records.flush()
            with open_spool(tmp_path / "spool") as third:
                assert third.leftovers() == []
        assert len(files(tmp_path / "spool")) == 1
        away.heal()
    assert not files(tmp_path / "spool")


async def test_damage_is_kept_aside_for_people_and_the_rest_counts(
    opened: Opens, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "spool"
    with open_spool(folder) as spool:
        for number in range(3):
            spool.append(encoded(number))
        spool.append(b"\xc1 this is no record")
    async with opened("here") as here:
        await eventually(lambda: not files(folder))
        assert len(await here.records.list("default")) == 3
    assert len(files(folder, "damaged")) == 1
    assert "store.spool.damaged" in caplog.text


@pytest.mark.slow
async def test_while_the_database_is_away_records_wait_and_none_is_lost_or_double(
    opened: Opens, store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_module, "HELD_MAX", 700)
    monkeypatch.setattr(spooling, "SEGMENT_BYTES", 20_000)
    async with opened("far", url=proxy.url) as far:
        for number in range(500):
            far.records.add(record(number))
        await asyncio.sleep(0)
        proxy.cut()
        for number in range(500, 2500):
            far.records.add(record(number))
            if number % 100 == 0:
                await asyncio.sleep(0.001)
        with pytest.raises(Unavailable):
            await far.records.flush()
        assert far.records.waiting_count > 1500
        proxy.heal()
        await eventually(lambda: far.records.waiting_count == 0)
        assert (far.records.dropped_count, far.records.trouble) == (0, None)
    (row,) = await store.database.fetch(
        "t",
        "SELECT count(*) AS records, (SELECT sum(calls)::bigint FROM call_days) AS calls FROM call_records",
    )
    assert dict(row) == {"records": 2500, "calls": 2500}


async def test_closing_while_the_database_is_away_leaves_records_for_the_next(
    opened: Opens, store: Store, store_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "left"
    async with proxied(store_url) as away, opened("first", url=away.url, spool_folder=folder) as first:
        away.cut()
        first.records.add(record(1))
    assert len(files(folder)) == 1
    async with opened("second", spool_folder=folder):
        await eventually(lambda: not files(folder))
    assert await store.records.list("default") == [record(1)]
