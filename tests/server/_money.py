"""A seeded plan of trouble for tests of money: prices and budgets, vendors that fail, clients that leave; and what must hold afterwards."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import httpx2
import msgspec
from msgspec import Struct

from tests._waiting import POLL_S, within
from tests.gateway._vendors import (
    ANTHROPIC_STREAM,
    ANTHROPIC_TEXT,
    CUT,
    HOLD,
    OPENAI_STREAM,
    OPENAI_TEXT,
    Asked,
    Step,
    openai_chunk,
    reply,
    sse,
    stream,
)

MODELS = ("openai/gpt-4o", "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5")
TEAMS, USERS = ("red", "blue"), ("ann", "bob", "cy")
TOKENS_MAX, TEXT_MAX, ADDED = 200, 2000, 900
LEAVES_S, PAUSE_S = 0.5, 0.02
REFUSED_MIN = 5
"""So often a budget has refused calls before traffic may end."""

MORE_MAX = 10
"""So many times what was wanted is asked for that."""

PICO = 10**12
DIALECTS = ("/v1/chat/completions", "/v1/messages")
Key = TypeVar("Key")
ENDS = (b"data: [DONE]", b"message_stop")
TROUBLE = {
    "counted": 60, "uncounted": 8, "refused": 10, "error inside": 4, "garbage": 4, "cut": 8, "hangs": 3, "silent": 3,
}  # fmt: skip
"""What a vendor does, and how often in a hundred."""

ROUTE = """
kind: route
name: any
models: [openai/gpt-4o, anthropic/claude-sonnet-4-5, openai/gpt-4o-mini]
timeouts: { first_event_s: 0.2 }
retries: { again_max: 1, share_max: 1 }
hedge: { after_s: 0.1, share_max: 1 }
---
kind: limit
name: each
scope: key/*
requests_per_minute: 1000000
concurrent_calls_max: 4
"""


class Plan:
    """Prices in pico-units a token. Budgets are of less than calls come to on the average, and of one call at least.

    `held` is called with a call's number when its vendor says nothing more.
    """

    def __init__(self, seed: int, calls_count: int) -> None:
        self.chance = chance = random.Random(seed)
        self.prices = {model: (chance.randrange(1, 10**7), chance.randrange(1, 10**7)) for model in MODELS}
        dear = max(max(pair) for pair in self.prices.values())
        most = dear * (TEXT_MAX + 2 * ADDED + TOKENS_MAX)
        # Of tokens, as they are drawn below.
        mean = sum(put * (TEXT_MAX / 2 + ADDED) + said * TOKENS_MAX for put, said in self.prices.values()) / 2
        spent = calls_count * mean / len(self.prices)
        self.budgets = {
            name: int(most + spent * share * chance.uniform(0.1, 0.6))
            for name, share in (("all", 1.0), ("team", 0.5), ("user", 0.3))
        }
        self.held: Callable[[int], None] = lambda _: None

    @property
    def template(self) -> str:
        rows = "".join(
            f'  - {{ models: "{model}", input: "{put / 10**6:.6f}", output: "{said / 10**6:.6f}" }}\n'
            for model, (put, said) in self.prices.items()
        )
        scopes = {"all": "organisation", "team": "team/*", "user": "user/*"}
        periods = {"all": "total", "team": "total", "user": "month"}
        budgets = "---".join(
            f"\nkind: budget\nname: {name}\nscope: {scopes[name]}\nperiod: {periods[name]}\n"
            f'amount_usd: "{size // PICO}.{size % PICO:012}"\n'
            for name, size in self.budgets.items()
        )
        return f"kind: price_book\nname: contract\nprices:\n{rows}---{ROUTE}---{budgets}"

    # What vendors do.

    def openai(self, asked: Asked) -> Sequence[Step]:
        put, said = self._usage(asked)
        usage = {"prompt_tokens": put, "completion_tokens": said, "total_tokens": put + said}
        closing = sse({**openai_chunk({}), "choices": [], "usage": usage}, b"[DONE]")
        bare = [*OPENAI_STREAM[:4], sse(b"[DONE]")]
        return self._answer(
            asked, _with(OPENAI_TEXT, usage), [*OPENAI_STREAM[:4], closing], _with(OPENAI_TEXT, None), bare
        )

    def anthropic(self, asked: Asked) -> Sequence[Step]:
        put, said = self._usage(asked)
        usage = {"input_tokens": put, "output_tokens": said}
        counted = [_recounted(piece, usage) for piece in ANTHROPIC_STREAM]
        whole = _with(ANTHROPIC_TEXT, usage)
        return self._answer(asked, whole, counted, whole, counted)

    def _usage(self, asked: Asked) -> tuple[int, int]:
        """Never more than the request allows."""
        size = sum(len(str(message["content"])) for message in asked.json["messages"])
        return self.chance.randrange(size + ADDED), self.chance.randrange(TOKENS_MAX + 1)

    def _answer(
        self, asked: Asked, whole: bytes, pieces: list[bytes], bare: bytes, bare_pieces: list[bytes]
    ) -> Sequence[Step]:
        streamed = bool(asked.json.get("stream"))
        number = number_in(asked)
        (kind,) = self.chance.choices(list(TROUBLE), list(TROUBLE.values()))
        match kind:
            case "counted":
                return stream(*pieces) if streamed else reply(whole)
            case "uncounted":
                return stream(*bare_pieces) if streamed else reply(bare)
            case "refused":
                return reply(b'{"error":{"message":"no"}}', status=self.chance.choice([429, 500, 503]))
            case "error inside":
                return reply(b'{"error":{"message":"no","code":503}}')
            case "garbage":
                return stream(*pieces[:2], b"data: {gar bage\n\n") if streamed else reply(b"<html>")
            case "cut" | "hangs":
                end = CUT if kind == "cut" else self._hold(number)
                (full,) = reply(whole)
                assert isinstance(full, bytes)
                return stream(*pieces[: self.chance.randrange(1, 4)], end) if streamed else [full[:-9], end]
            case _:
                return [self._hold(number)]

    def _hold(self, number: int) -> Step:
        self.held(number)
        return HOLD


def number_in(asked: Asked) -> int:
    """Of the call, as its text begins."""
    (message,) = asked.json["messages"]
    return int("".join(filter(str.isdecimal, str(message["content"]))))


def _with(body: bytes, usage: Mapping[str, int] | None) -> bytes:
    fields = msgspec.json.decode(body)
    del fields["usage"]
    return msgspec.json.encode(fields if usage is None else {**fields, "usage": usage})


def _recounted(piece: bytes, usage: Mapping[str, int]) -> bytes:
    """Of a stream of Anthropic's, with other numbers."""
    lines = piece.split(b"\n")
    for place, line in enumerate(lines):
        if line.startswith(b"data: ") and b'"usage"' in line:
            event = msgspec.json.decode(line[6:])
            if "message" in event:
                event["message"]["usage"] = {**usage, "output_tokens": 0}
            else:
                event["usage"] = {"output_tokens": usage["output_tokens"]}
            lines[place] = b"data: " + msgspec.json.encode(event)
    return b"\n".join(lines)


class Traffic:
    """`doors` gives clients of the servers that are up, one a team; `answered` are calls that ended well, as clients heard.

    A client leaves LEAVES_S after the vendor has said its last, or where chance says so: however slow the machine is, as many go on.
    """

    def __init__(self, plan: Plan, doors: Callable[[], Sequence[httpx2.AsyncClient]]) -> None:
        self._plan = plan
        self._doors = doors
        self.asked_count = 0
        self.answered: list[str] = []
        self.refused: Counter[str] = Counter()
        self._waiting: dict[int, asyncio.Timeout] = {}
        plan.held = self._leave

    def _leave(self, number: int) -> None:
        if (one := self._waiting.get(number)) is not None and not one.expired():
            one.reschedule(asyncio.get_running_loop().time() + LEAVES_S)

    async def until_refused(self) -> None:
        """Some more calls, until budgets are reached."""
        most = MORE_MAX * self.asked_count
        while self.refused["budget"] < REFUSED_MIN and self.asked_count < most:
            await self.run(10)

    async def run(self, calls_count: int, callers: int = 6) -> None:
        wanted = self.asked_count + calls_count

        async def call() -> None:
            while self.asked_count < wanted:
                self.asked_count += 1
                try:
                    await self._ask(self.asked_count)
                except (TimeoutError, httpx2.TransportError):
                    await asyncio.sleep(PAUSE_S)  # The client left, or the server was killed.

        async with asyncio.TaskGroup() as all_:
            for _ in range(callers):
                all_.create_task(call())

    async def _ask(self, number: int) -> None:
        chance, doors = self._plan.chance, self._doors()
        if not doors:
            await asyncio.sleep(PAUSE_S)
            return
        path, streamed = chance.choice(DIALECTS), chance.random() < 0.5
        text = f"{number}" + "x" * chance.randrange(1, TEXT_MAX)
        body: dict[str, Any] = {
            "model": chance.choice([*MODELS, "route/any"]),
            "messages": [{"role": "user", "content": text}],
            "max_tokens": TOKENS_MAX,
            "stream": streamed,
        }
        headers = {"x-freehold-user": chance.choice(USERS)}
        leaves = chance.random() < 0.1
        async with (
            self._leaving(number),
            chance.choice(doors).stream("POST", path, json=body, headers=headers) as answer,
        ):
            said = b""
            async for piece in answer.aiter_bytes():
                said += piece
                if leaves:
                    return
        if answer.status_code == 200 and (not streamed or any(end in said for end in ENDS)):
            self.answered.append(answer.headers["x-freehold-call-id"])
        elif answer.status_code == 429:
            self.refused["budget" if b"budget " in said else "limit"] += 1

    @asynccontextmanager
    async def _leaving(self, number: int) -> AsyncIterator[None]:
        async with within(f"the end of call {number}"), asyncio.timeout(None) as self._waiting[number]:
            try:
                yield
            finally:
                del self._waiting[number]


class Told(Struct, frozen=True):
    """What it all came to, as four places tell it: by budget and whom it is for, by team, and in all."""

    rows: Sequence[asyncpg.Record]
    of_records: dict[tuple[str, str], int]
    used: dict[tuple[str, str], int]
    settled: dict[tuple[str, str], int]
    billed_teams: dict[str, int]
    billed: int

    @property
    def is_one(self) -> bool:
        budgets = {key: cost for key, cost in self.of_records.items() if key[0] == "all" or key[1]}
        teams = {name: cost for (scope, name), cost in self.of_records.items() if scope == "team"}
        return (
            self.billed == self.of_records.get(("all", ""), 0)
            and _paid(self.billed_teams) == _paid(teams)
            and _paid(budgets) == _paid(self.used) == _paid(self.settled)
        )

    def __repr__(self) -> str:
        """Without the rows."""
        return f"{self.of_records=} {self.used=} {self.settled=} {self.billed_teams=} {self.billed=}"


async def conserved(plan: Plan, traffic: Traffic, operator: httpx2.AsyncClient, url: str) -> None:
    """Asserts that all sums are one, that each record has its price, and that no budget was passed."""
    seen: list[Told] = []
    # A client that has left is noticed a moment later, and only then is its call over.
    async with within("records, budgets, leases and the bill to tell one sum", seen):
        while not (told := await _told(operator, url)).is_one:
            seen[:] = [told]
            await asyncio.sleep(POLL_S)
    for row in told.rows:
        put, said = plan.prices.get(f"{row['provider']}/{row['model']}", (0, 0))
        assert row["cost_pico"] == put * row["input_tokens"] + said * row["output_tokens"], dict(row)
    assert told.billed > 0
    passed = {key: cost for key, cost in told.of_records.items() if cost > plan.budgets[key[0]]}
    assert not passed, f"of budgets of {plan.budgets}"
    assert traffic.refused["budget"] >= REFUSED_MIN, "no budget was reached, so nothing was shown"
    assert set(traffic.answered) <= {row["id"] for row in told.rows}, "an answered call without a record"
    assert len(traffic.answered) == len(set(traffic.answered))


async def _told(operator: httpx2.AsyncClient, url: str) -> Told:
    shown = (await operator.get("/v1/budgets")).json()["data"]
    bill = (await operator.get("/v1/costs?by=&recount=true")).json()["totals"]
    by_team = (await operator.get("/v1/costs?by=team")).json()["lines"]
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT * FROM freehold.call_records")
    leased = await connection.fetch(
        "SELECT a.name, a.subject, a.base + coalesce(sum(l.recorded), 0) AS settled FROM freehold.allowances a"
        " LEFT JOIN freehold.allowance_leases l ON l.allowance = a.id WHERE a.measure = 'money'"
        " GROUP BY a.id, a.name, a.subject, a.base"
    )
    await connection.close()
    spent: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        for scope, subject in (("all", ""), ("team", row["team"] or ""), ("user", row["user_name"] or "")):
            spent[scope, subject] += row["cost_pico"]
    return Told(
        rows=rows,
        of_records=spent,
        used={(line["name"], line["subject"]): pico(line["used_usd"]) for line in shown},
        settled={(row["name"], row["subject"]): int(row["settled"]) for row in leased},
        billed_teams={line["group"]["team"]: pico(line["amount"]) for line in by_team},
        billed=pico(bill.get("USD", "0")),
    )


def _paid(sums: Mapping[Key, int]) -> dict[Key, int]:
    return {key: cost for key, cost in sums.items() if cost}


def pico(amount: str) -> int:
    units, _, decimals = amount.partition(".")
    return int(units) * PICO + int(decimals.ljust(12, "0"))
