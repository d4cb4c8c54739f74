"""Memory of the whole server after many model calls against after few: bench/gateway/run --requests 1000000.

Sixteen connections, 1 KB answers, every record into PostgreSQL. Memory is the server's own process's, PostgreSQL's is not in it,
read between slices of load. Not here: CPU (compare.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

FEW = 10_000
"""After so many, a server's caches are full."""

GROWTH_MAX = 0.05
SLICE_S, FIRST_SLICE_S = 10.0, 2.0
LOOKS_COUNT = 10


class Held(NamedTuple):
    """After so many answers: KB that are resident, and of these what is no file's."""

    answers: int
    resident_kb: int
    own_kb: int


class Grown(NamedTuple):
    """What was held after FEW, now and then, and at the end; `growth` is of resident memory, from the first to the last."""

    held: list[Held]
    growth: float


def grown(ask: Callable[[float], float], pid: int, requests: int, tell: Callable[[str], None]) -> Grown:
    """`ask` asks for so many seconds, and says how many were answered."""
    answers, took_s = 0.0, 0.0
    found: list[Held] = []
    step = max(1, requests // LOOKS_COUNT)
    for wanted in (FEW, *range(step, requests, step), requests):
        while answers < wanted:
            left_s = (wanted - answers) * took_s / answers if answers else FIRST_SLICE_S
            # No more than was asked so far, as a server's first answers say little of its pace.
            seconds = max(FIRST_SLICE_S, min(SLICE_S, left_s, took_s))
            answers += ask(seconds)
            took_s += seconds
        found.append(held(pid, int(answers)))
        tell(shown(found[-1]))
    return Grown(found, found[-1].resident_kb / found[0].resident_kb - 1)


def held(pid: int, answers: int) -> Held:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {name: value for name, _, value in (line.partition(":") for line in lines)}
    resident, own = (int(sizes[name].split()[0]) for name in ("Rss", "Anonymous"))
    return Held(answers, resident, own)


def shown(one: Held) -> str:
    return f"after {one.answers:>9,} answers: {one.resident_kb / 1024:7.1f} MB resident, {one.own_kb / 1024:7.1f} MB of it its own"
