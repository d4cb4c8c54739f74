"""How a figure is told: a line to read, or with `--json` a line of JSON."""

import json
import os
import sys

AS_JSON = "--json" in sys.argv
UNITS = {"us": "us", "ms": "ms", "s": "s", "mb": "MB", "percent": "%"}


def say(what: str, **figures: object) -> None:
    """A name's last word is its unit, where it has one."""
    if AS_JSON:
        print(json.dumps({"what": what, "load": round(os.getloadavg()[0], 1), **figures}), flush=True)
        return
    print(f"{what:<58} " + "   ".join(_one(name, value) for name, value in figures.items()), flush=True)


def _one(name: str, value: object) -> str:
    words, _, unit = name.rpartition("_")
    shown = (
        f"{value:,.2f}"
        if isinstance(value, float) and abs(value) < 10
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
    return (
        f"{words} {shown} {UNITS[unit]}".replace("_", " ")
        if unit in UNITS and words
        else f"{name.replace('_', ' ')} {shown}"
    )


def percentiles(label: str, values_ms: list[float], **more: object) -> None:
    values_ms.sort()
    count = len(values_ms)
    say(
        label,
        p50_ms=values_ms[count // 2],
        p99_ms=values_ms[int(count * 0.99)],
        most_ms=values_ms[-1],
        times=count,
        **more,
    )
