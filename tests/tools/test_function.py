"""The `function` kind: real child processes, the operator's files on disk."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from freehold.core.errors import BadRequest, NotFound, TimedOut, Unavailable
from freehold.core.ports import OpenTool
from freehold.tools.function import KIND
from tests._waiting import eventually
from tests.tools._host import Host, data, opened, parameters, read, run

FILE = '''
import datetime, os, signal, subprocess, sys, time
from typing import Annotated, Literal
from msgspec import Meta, Struct

LOADED = os.getpid()
calls = 0

class Line(Struct):
    sku: str
    units: Annotated[int, Meta(ge=1)]

class Total(Struct):
    units: int
    due: datetime.date

def total(lines: Annotated[list[Line], Meta(min_length=1, description="What was ordered.")], *, rate: float = 1.0,
          how: Literal["sum", "max"] = "sum", url: str = "nowhere") -> Total:
    """Adds up the lines.

    By the rate.
    """
    units = sum(line.units for line in lines) if how == "sum" else max(line.units for line in lines)
    return Total(int(units * rate), datetime.date(2026, 11, 15))

def seen() -> dict:
    """What it can see."""
    global calls
    calls += 1
    return {"environment": sorted(os.environ), "calls": calls, "forked": os.getpid() != LOADED}

def given(url: str, n: int = 1) -> str:
    return f"{url} {n}"

def fails(n: int) -> int:
    raise ValueError(f"n: {n} is odd")

def dies() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)

def sleeps(pid_file: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(pid_file, "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(600)

def spins() -> None:
    while True:
        pass

def eats() -> int:
    return len(bytearray(800_000_000))

def prints() -> str:
    print("to standard output" * 10_000)
    print("to standard error" * 10_000, file=sys.stderr)
    return "done"

async def waits() -> str:
    import asyncio
    await asyncio.sleep(0)
    return "waited"

def numbers():
    import numpy
    return {"one": numpy.float64(1.5), "many": numpy.arange(3)}

def untyped(x):
    return x
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path


@pytest.fixture
def host(folder: Path) -> Host:
    return Host(function_folders=[folder], databases={"sales": "postgresql://reader@here/sales"})


@pytest.fixture(scope="module")
async def total(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OpenTool]:
    """`total`, for tests that only call it: each start of a process costs more than all their calls."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "mine.py").write_text(FILE)
    async with using(Host(function_folders=[folder]), "total", bind={"url": "x"}) as tool:
        yield tool


def using(host: Host, function: str, **config):
    return opened(KIND, host, {"file": "mine.py", "function": function, **config}, description="Ours.")


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


async def test_a_signature_becomes_the_schema_and_its_docstring_the_description(total: OpenTool):
    (function,) = total.functions
    assert function.spec.name == ""
    assert function.effect == "pure"
    assert function.spec.description == "Ours.\n\nAdds up the lines.\n\nBy the rate."
    schema = parameters(total, "")
    assert set(schema["properties"]) == {"lines", "rate", "how"}
    assert schema["required"] == ["lines"]
    assert schema["properties"]["lines"]["items"]["properties"]["units"] == {
        "type": "integer",
        "minimum": 1,
    }
    assert schema["additionalProperties"] is False
    lines = [{"sku": "A", "units": 2}, {"sku": "B", "units": 5}]
    assert await data(total, "", lines=lines, rate=2.0) == {"units": 14, "due": "2026-11-15"}
    assert (await data(total, "", lines=lines, how="max"))["units"] == 5


@pytest.mark.parametrize(
    ("arguments", "field", "said"),
    [
        ({}, "lines", "missing"),
        ({"lines": []}, "lines", "length"),
        ({"lines": [{"sku": "A", "units": 0}]}, "lines[0].units", ">= 1"),
        ({"lines": [{"sku": "A", "units": "2"}]}, "lines[0].units", "int"),
        ({"lines": [{"sku": "A", "units": 1}], "hwo": "sum"}, "hwo", "how"),
        ({"lines": [{"sku": "A", "units": 1}], "url": "mine"}, "url", "unknown"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_with_their_path(total: OpenTool, arguments, field, said):
    with pytest.raises(BadRequest, match=said) as caught:
        await run(total, "", **arguments)
    assert caught.value.field == field


async def test_bound_parameters_come_from_the_host(host: Host, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("THE_TOKEN", "s3cret")
    async with using(host, "given", bind={"url": {"database": "sales"}}) as tool:
        assert "url" not in parameters(tool, "")["properties"]
        assert await data(tool, "", n=3) == "postgresql://reader@here/sales 3"
    async with using(host, "given", bind={"url": {"secret": "env:THE_TOKEN"}}) as tool:
        assert await data(tool, "") == "s3cret 1"
    with pytest.raises(NotFound):
        async with using(host, "given", bind={"url": {"database": "other"}}):
            pass
    with pytest.raises(BadRequest, match="nothing_such"):
        async with using(host, "given", bind={"nothing_such": 1}):
            pass


async def test_the_process_has_no_secret_and_runs_leave_nothing_behind(
    host: Host, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    async with using(host, "seen") as tool:
        for _ in range(2):
            seen = await data(tool, "")
            assert "OPENAI_API_KEY" not in seen["environment"]
            assert seen["calls"] == 1
            assert seen["forked"]


@pytest.mark.slow
async def test_a_run_pays_for_no_import_a_second_time(folder: Path, host: Host):
    imports = folder / "imports"
    (folder / "dear.py").write_text(
        f"with open({str(imports)!r}, 'a') as told:\n    told.write('x')\ndef f() -> int:\n    return 1\n"
    )
    async with opened(KIND, host, {"file": "dear.py", "function": "f"}) as tool:
        await data(tool, "")
        before = imports.read_text()
        for _ in range(3):
            await data(tool, "")
        assert imports.read_text() == before


async def test_what_the_code_raises_is_a_failed_answer_without_its_traceback(host: Host):
    async with using(host, "fails") as tool:
        outcome = await run(tool, "", n=3)
        assert outcome.failed
        assert read(outcome) == {"error": "ValueError: n: 3 is odd"}


async def test_a_run_that_dies_is_unavailable_and_the_next_one_runs(host: Host, folder: Path):
    (folder / "mine.py").write_text(FILE + "\ndef once(n: int) -> int:\n    return dies() if n else 7\n")
    async with using(host, "once") as tool:
        with pytest.raises(Unavailable, match="SIGSEGV"):
            await run(tool, "", n=1)
        assert await data(tool, "", n=0) == 7


@pytest.mark.slow
async def test_a_run_over_its_time_is_killed_with_what_it_started(host: Host, tmp_path: Path):
    pids = tmp_path / "pids"
    async with using(host, "sleeps") as tool:
        # A slow machine may take the first before the function has begun.
        for timeout_s in (1.0, 5.0, 25.0):
            with pytest.raises(TimedOut, match="timeout_s"):
                await run(tool, "", timeout_s=timeout_s, pid_file=str(pids))
            if pids.exists():
                break
        for pid in map(int, pids.read_text().split()):
            await eventually(lambda pid=pid: gone(pid))
    async with using(host, "spins") as tool:
        with pytest.raises(TimedOut):
            await run(tool, "", timeout_s=0.3)


async def test_a_cancelled_run_and_a_closed_tool_leave_no_process(host: Host, tmp_path: Path):
    pids = tmp_path / "pids"
    async with using(host, "sleeps") as tool:
        task = asyncio.create_task(run(tool, "", pid_file=str(pids)))
        await eventually(lambda: pids.exists() and pids.read_text().count(" "))
        task.cancel()
        await asyncio.wait([task])
        for pid in map(int, pids.read_text().split()):
            await eventually(lambda pid=pid: gone(pid))


@pytest.mark.slow
async def test_memory_is_bounded_per_run(host: Host):
    async with using(host, "eats", memory_mb=64) as tool:
        outcome = await run(tool, "")
        assert outcome.failed
        assert "memory_mb (64)" in read(outcome)["error"]
    async with using(host, "eats", memory_mb=2000) as tool:
        assert await data(tool, "") == 800_000_000


@pytest.mark.slow
async def test_runs_go_side_by_side(host: Host, folder: Path):
    here = folder / "here"
    here.mkdir()
    (folder / "meets.py").write_text(
        "import time\nfrom pathlib import Path\n"
        "def meet(number: int) -> int:\n"
        f"    here = Path({str(here)!r})\n"
        "    (here / str(number)).touch()\n"
        "    while len(list(here.iterdir())) < 4:\n        time.sleep(0.01)\n"
        "    return number\n"
    )
    async with opened(KIND, host, {"file": "meets.py", "function": "meet"}) as tool:
        assert await asyncio.gather(*(data(tool, "", number=number) for number in range(4))) == [0, 1, 2, 3]


@pytest.mark.slow
async def test_prints_awaitables_and_numpy_are_fine(host: Host):
    async with using(host, "prints") as tool:
        assert await data(tool, "") == "done"
    async with using(host, "waits") as tool:
        assert await data(tool, "") == "waited"
    async with using(host, "numbers") as tool:
        assert await data(tool, "") == {"one": 1.5, "many": [0, 1, 2]}


@pytest.mark.slow
async def test_a_file_that_changed_is_loaded_again(host: Host, folder: Path):
    (folder / "mine.py").write_text("def f() -> int:\n    return 1\n")
    async with using(host, "f") as tool:
        assert await data(tool, "") == 1
        (folder / "mine.py").write_text("def f() -> int:\n    return 22\n")
        assert await data(tool, "") == 22


@pytest.mark.parametrize(
    "name", ["../mine.py", "/etc/passwd", "mine.txt", "a/../../mine.py", "out.py", "..\\mine.py"]
)
async def test_a_file_outside_the_folders_is_refused(host: Host, folder: Path, name: str):
    (folder / "out.py").symlink_to("/etc/passwd")
    with pytest.raises(BadRequest) as caught:
        async with opened(KIND, host, {"file": name, "function": "f"}):
            pass
    assert caught.value.field == "config.file"


@pytest.mark.parametrize(
    ("source", "function", "error", "said"),
    [
        ("x = 1 +", "f", BadRequest, "SyntaxError"),
        pytest.param("import nothing_such", "f", BadRequest, "nothing_such", marks=pytest.mark.slow),
        pytest.param("def other(): pass", "f", BadRequest, "it has: other", marks=pytest.mark.slow),
        pytest.param("def f(x): pass", "f", BadRequest, "has no type", marks=pytest.mark.slow),
        pytest.param("def f(*x: int): pass", "f", BadRequest, "by name", marks=pytest.mark.slow),
        ("import os; os._exit(3)", "f", Unavailable, "died"),
    ],
)
async def test_a_file_that_cannot_be_loaded_says_why(host: Host, folder: Path, source, function, error, said):
    (folder / "bad.py").write_text(source)
    with pytest.raises(error, match=said):
        async with opened(KIND, host, {"file": "bad.py", "function": function}):
            pass


async def test_a_missing_file_is_not_found(host: Host):
    with pytest.raises(NotFound, match="none of the 1 function folders"):
        async with opened(KIND, host, {"file": "no.py", "function": "f"}):
            pass
