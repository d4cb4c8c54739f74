"""What processes took of the machine, from /proc: so Linux alone. And how quick the machine was just then."""

import os
import time
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CALLS = 200_000


def tree_cpu_s(root: int) -> float:
    """CPU of a process, of its living children, and of those that it has buried."""
    fields: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            fields[int(entry.name)] = text[text.rindex(")") + 2 :].split()
    tree = [root, *(pid for pid, stat in fields.items() if int(stat[1]) == root)]
    return sum(int(ticks) for pid in tree for ticks in fields[pid][11:15]) / TICKS_PER_S


def postmaster(data: Path) -> int:
    return int(next(data.rglob("postmaster.pid")).read_text().split()[0])


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def call_ns() -> float:
    """CPU of a trivial call of a function in this interpreter: what others do to the caches shows in it."""
    best = 1e9
    for _ in range(3):
        began = time.process_time()
        for number in range(CALLS):
            _same(number)
        best = min(best, (time.process_time() - began) / CALLS * 1e9)
    return best


def _same(number: int) -> int:
    return number
