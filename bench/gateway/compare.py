"""CPU of a gateway per model call and per streamed event, from outside, beside others in the same run: see README.md above.

    bench/gateway/run --requests 1000000 [--json]
    bench/gateway/run --streams 2000 [--minutes 10] [--cases translated] [--json]
    bench/gateway/run [--peers] [--seconds 4] [--rounds 3] [--only NAME,...] [--cases WORD] [--other CHECKOUT]
                      [--python PATH] [--json]

A compiled load (load.go) and a compiled stub of a vendor (stub.go) share the last core; each peer (peers.py) has the first, and
they take turns, so that what else the machine does falls on all of them. CPU is what a peer's process used between two moments,
over the answers in between. `--python` runs Freehold, and that alone, by another interpreter (../interpreter.py). Linux only (/proc), Go 1.18 or newer; loopback only, bounded in time.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import interpreter
import memory
import streams
from installed import INSTALLED, NOT_HERE, newest_go
from peers import CHAT, CORES, MESSAGES, PEERS, Absent, Around, Peer, Running, checkout, freehold

HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
WRONG_SHARE_MAX = 0.1
OURS, BESIDE = "Freehold", ("nginx", "Go")
WANTED = {"LiteLLM": 60, "Portkey": 15, "TensorZero": 2}
"""How many requests for each of theirs Freehold should answer in the same CPU time."""

Figures = dict[str, float]


class Case(NamedTuple):
    """`figure` is what is compared; `wanted` is the most that Freehold should take."""

    name: str
    path: str
    body: dict[str, Any]
    connections: int
    figure: str
    wanted: str = ""


def cases() -> list[Case]:
    short: Any = [{"role": "user", "content": "What is on its way to the warehouse? " * 24}]
    long: Any = [
        {
            "role": "assistant" if index % 2 else "user",
            "content": f"{index}: " + "some words that matter " * 21,
        }
        for index in range(61)
    ]
    chat, long_chat = (
        {"model": "openai/bench", "messages": short},
        {"model": "openai/bench", "messages": long},
    )
    messages, long_messages = chat | {"max_tokens": 500}, long_chat | {"max_tokens": 500}
    cpu, event = "cpu_us", "cpu_us_per_event"
    return [
        Case("same wire, 1 KB", CHAT, chat, 16, cpu, "1.2 x Go"),
        Case("same wire, 30 KB, 61 messages", CHAT, long_chat, 16, cpu, "0.5 x Go"),
        Case("translated, 1 KB", MESSAGES, messages, 16, cpu, "2 x same wire"),
        Case("translated, 30 KB, 61 messages", MESSAGES, long_messages, 16, cpu, "2 x same wire"),
        Case("stream, an event, same wire", CHAT, chat | {"stream": True}, 64, event, "2 x nginx"),
        Case("stream, an event, translated", MESSAGES, messages | {"stream": True}, 64, event, "1.5 x Go's same wire"),
        Case("one connection, p50 ms", CHAT, chat, 1, "p50_ms", "stub + 0.5"),
        Case("one connection, p99 ms", CHAT, chat, 1, "p99_ms", "stub + 2"),
    ]  # fmt: skip


class Found(NamedTuple):
    """`cases`: case to peer to its rounds. `absent`: who is not measured, or not in a case, and why."""

    cases: dict[str, dict[str, list[Figures]]]
    versions: dict[str, str]
    absent: dict[str, str]


class Failed(Exception):
    """A peer cannot do a case, and why."""


def built(folder: Path, go: str | None) -> None:
    if go is None:
        sys.exit(
            "Go is not installed: the load, the stub and the gateway to compare with are Go (apt install golang)"
        )
    for name in ("stub", "load", "bare", "streams"):
        command = [go, "build", "-o", str(folder / name), str(HERE / f"{name}.go")]
        subprocess.run(command, check=True, cwd=HERE, env=os.environ | {"GO111MODULE": "off"})


def request(running: Running, case: Case) -> bytes:
    data = json.dumps(case.body | {"model": running.model}, separators=(",", ":")).encode()
    lines = [
        f"POST {running.prefix}{case.path} HTTP/1.1",
        "host: bench",
        f"authorization: Bearer {running.key}",
        "content-type: application/json",
        "accept: application/json",
        "user-agent: bench/1",
        f"content-length: {len(data)}",
        *running.headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def measured(programs: Path, running: Running, case: Case, seconds: float) -> Figures:
    """Raises Failed."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(request(running, case))
        file.flush()
        expected = "[DONE]" if case.body.get("stream") and case.path == CHAT else "usage"
        address = f"127.0.0.1:{running.port}"
        command = [
            str(programs / "load"),
            address,
            file.name,
            str(case.connections),
            str(running.warm_s),
            str(seconds),
            expected,
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            assert load.stdout is not None
            if not load.stdout.readline():
                raise Failed("it broke off its connections")
            before, below_before = cpu_s(running.pids), below_s(running.parent)
            load.stdout.readline()
            used, below = cpu_s(running.pids) - before, below_s(running.parent) - below_before
            told: Figures = json.loads(load.stdout.readline() or "{}")
    if not told:
        raise Failed("it broke off its connections")
    if not told["answers"]:
        raise Failed(f"no answer in {seconds:g} s")
    if told["failed"] > WRONG_SHARE_MAX * told["answers"]:
        raise Failed(f"{told['failed']:.0f} of its {told['answers']:.0f} answers were wrong")
    answers, events = max(1, told["answers"]), max(1, told["events"])
    return told | {
        "cpu_us": 1e6 * used / answers,
        "cpu_us_per_event": 1e6 * used / events,
        "database_cpu_us": 1e6 * below / answers,
        "per_s": told["answers"] / seconds,
    }  # fmt: skip


def cpu_s(pids: tuple[int, ...]) -> float:
    """Of all threads, by the scheduler's nanoseconds: clock ticks are 10 ms."""
    threads = [thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((one / "schedstat").read_text().split()[0]) for one in threads) / 1e9


def below_s(parent: int | None) -> float:
    """Of every process below `parent`."""
    if parent is None:
        return 0.0
    stats: dict[int, tuple[int, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            stats[int(entry.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS)
    below = {parent}
    for _ in range(4):
        below |= {pid for pid, (up, _) in stats.items() if up in below}
    return sum(stats[pid][1] for pid in below - {parent} if pid in stats)


@contextmanager
def prepared(go: str | None, python: str) -> Iterator[Around]:
    """All but the peers, with this process and what it starts on the last core."""
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as name:
        folder = Path(name)
        built(folder, go)
        os.sched_setaffinity(0, {CORES[-1]})
        with subprocess.Popen([str(folder / "stub")], stdout=subprocess.PIPE, text=True) as serving:
            assert serving.stdout is not None
            try:
                yield Around(int(serving.stdout.readline()), folder, folder, python)
            finally:
                serving.terminate()


def remembered(around: Around, requests: int) -> memory.Grown:
    case = cases()[0]
    with freehold(around) as running:
        cold = running._replace(warm_s=0)
        return memory.grown(
            lambda seconds: measured(around.programs, cold, case, seconds)["answers"],
            running.pids[0],
            requests,
            tell,
        )


def slow_streams(around: Around, count: int, minutes: float, words: str) -> streams.Slow:
    case = next(case for case in cases() if case.body.get("stream") and words in case.name)
    return streams.held(
        around,
        freehold,
        lambda running: request(running, case),
        cpu_s,
        streams=count,
        seconds=60 * minutes,
    )


def run(around: Around, seconds: float, rounds: int, peers: list[Peer], words: str) -> Found:
    found = Found({}, {}, {})
    with ExitStack() as stack:
        running = started(around, stack, peers, found)
        for turn in range(rounds):
            for case in [case for case in cases() if words in case.name]:
                tell(f"round {turn + 1} of {rounds}: {case.name}")
                for peer, one in running:
                    if f"{peer.name}, {case.name}" in found.absent or case.path not in peer.paths:
                        continue
                    if not (one.pids or case.figure.endswith("_ms")):
                        continue
                    try:
                        figures = measured(around.programs, one, case, seconds)
                    except Failed as why:
                        found.absent[f"{peer.name}, {case.name}"] = str(why)
                        found.cases.get(case.name, {}).pop(peer.name, None)
                    else:
                        found.cases.setdefault(case.name, {}).setdefault(peer.name, []).append(figures)
    return found


def started(around: Around, stack: ExitStack, peers: list[Peer], found: Found) -> list[tuple[Peer, Running]]:
    running = []
    for peer in peers:
        try:
            one = stack.enter_context(peer.start(around))
        except Absent as why:
            found.absent[peer.name] = str(why)
        else:
            running.append((peer, one))
            found.versions[peer.name] = one.version
            tell(f"{peer.name} {one.version} is there")
    return running


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def summed(
    found: dict[str, dict[str, list[Figures]]], by: Callable[[Iterable[float]], float]
) -> dict[str, dict[str, Figures]]:
    return {
        case: {
            peer: {name: by(one[name] for one in rounds) for name in rounds[0]}
            for peer, rounds in peers.items()
        }
        for case, peers in found.items()
    }


def show(found: dict[str, dict[str, Figures]], names: list[str]) -> None:
    """Nobody else translates: what is translated stands beside others' same wire."""
    names = [name for name in names if any(name in peers for peers in found.values())]
    others = [name for name in names if name in BESIDE]
    width = max(len(name) for name in names) + 2
    ratios = [f"x {name}" for name in others]
    heads = "".join(f"{name:>{width}}" for name in (*names, *ratios))
    print(f"{'CPU us, or as it says':32}{heads}  wanted")
    for case in cases():
        peers = found.get(case.name)
        if peers is None:
            continue
        values = {name: peers[name][case.figure] for name in names if name in peers}
        shown = "".join(f"{values[name]:{width}.2f}" if name in values else " " * width for name in names)
        beside = found.get(case.name.replace("translated", "same wire"), {})
        for name in others:
            other = beside[name][case.figure] if name in beside else 0
            ratio = values[OURS] / other if OURS in values and other else None
            shown += " " * width if ratio is None else f"{ratio:{width}.2f}"
        print(f"{case.name:32}{shown}  {case.wanted}")


def show_published(found: dict[str, dict[str, Figures]]) -> None:
    """Of whole answers. A second of CPU is the gateway's alone; beside it, with the database that Freehold writes records to."""
    print(
        f"\n{'requests per CPU second':32}{'Freehold':>10}{'it':>10}{'x it':>8}{'with database':>15}  wanted"
    )
    for case, name in ((case, peer.name) for case in cases() for peer in INSTALLED):
        peers = found.get(case.name, {})
        if case.figure != "cpu_us" or OURS not in peers or name not in peers:
            continue
        ours, it = peers[OURS]["cpu_us"], peers[name]["cpu_us"]
        whole = ours + peers[OURS]["database_cpu_us"]
        line = f"{name + ', ' + case.name:32}{1e6 / ours:10.0f}{1e6 / it:10.0f}{it / ours:8.1f}{it / whole:15.1f}"
        print(f"{line}  {WANTED[name]} x")


def show_rest(found: Found) -> None:
    print(
        "\nversions: " + ", ".join(f"{name} {version}" for name, version in found.versions.items() if version)
    )
    for name, why in found.absent.items():
        print(f"not measured: {name}: {why}")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # So that what was started is stopped.
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="per case, peer and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peers", action="store_true", help="also those that others publish, installed where they are not"
    )
    parser.add_argument(
        "--requests", type=int, help=f"instead: memory after so many against after {memory.FEW:,}"
    )
    parser.add_argument(
        "--streams", type=int, help="instead: so many slow streams at once, held for --minutes"
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", default="", help="names of peers, by commas")
    parser.add_argument("--cases", default="", help="a word in their names")
    parser.add_argument("--other", help="a folder with another checkout, measured as `other`")
    parser.add_argument(
        "--least", action="store_true", help="the least of the rounds instead of their median"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--python", help="an interpreter to run Freehold by, instead of this one")
    options = parser.parse_args()
    python = interpreter.program(options.python) if options.python else sys.executable
    if options.requests:
        with prepared(shutil.which("go"), python) as around:
            grown = remembered(around, options.requests)
        if options.json:
            held = [one._asdict() for one in grown.held]
            print(json.dumps({"held": held, "growth": grown.growth, "wanted": memory.GROWTH_MAX}, indent=1))
        else:
            print("\n".join(map(memory.shown, grown.held)))
            print(f"grown by {grown.growth:+.1%}, wanted {memory.GROWTH_MAX:.0%} at most")
        return
    if options.streams:
        with prepared(shutil.which("go"), python) as around:
            slow = slow_streams(around, options.streams, options.minutes, options.cases)
        print(json.dumps(slow._asdict(), indent=1) if options.json else streams.shown(slow))
        return
    only = set(filter(None, options.only.split(",")))
    if unknown := only - {peer.name for peer in (*PEERS, *INSTALLED)}:
        parser.error(f"--only: no peer is called {', '.join(sorted(unknown))}")
    peers = [peer for peer in (*PEERS, *INSTALLED * options.peers) if not only or peer.name in only]
    peers += [checkout(Path(options.other))] if options.other else []
    go = (newest_go() if options.peers else None) or shutil.which("go")
    with prepared(go, python) as around:
        found = run(around, options.seconds, options.rounds, peers, options.cases)
    if options.peers:
        found.absent.update(NOT_HERE)
    by = min if options.least else statistics.median
    cases_ = summed(found.cases, by)
    if options.json:
        print(json.dumps({"cases": cases_, "versions": found.versions, "absent": found.absent}, indent=1))
        return
    show(cases_, [peer.name for peer in peers])
    if options.peers:
        show_published(cases_)
    show_rest(found)


if __name__ == "__main__":
    main()
