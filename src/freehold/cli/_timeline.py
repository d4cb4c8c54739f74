"""A session's events as a timeline: what was said and done when, for how long and at what cost. Pure; shown by _timeline_view.py."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

from msgspec import Struct

EntryKind = Literal["said", "answer", "thought", "model", "tool", "wait", "note", "trouble"]


class Entry(Struct, kw_only=True):
    """Milliseconds are from the session's first event. `detail` is what it was given, `outcome` what came of it; `cost_pico` is
    None where no price is known. `open`: it has not ended yet."""

    kind: EntryKind
    begin_ms: float
    end_ms: float
    title: str
    detail: Any = None
    outcome: str = ""
    failed: bool = False
    tokens: tuple[int, int] | None = None
    cost_pico: int | None = 0
    open: bool = False

    @property
    def duration_ms(self) -> float:
        return self.end_ms - self.begin_ms


class Turn(Struct, kw_only=True):
    """`number` is 0 for what stands outside of turns."""

    number: int
    begin_ms: float
    end_ms: float
    outcome: str = ""
    message: str = ""
    entries: list[Entry] = []


class OfModel(Struct):
    """What a model used, all its calls together."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_pico: int = 0


class Spent(Struct):
    """Where the time of turns went, and the money. Tools side by side count once, and not while they wait for somebody; `other` is queues,
    the database and ourselves."""

    model_ms: float = 0.0
    tools_ms: float = 0.0
    waiting_ms: float = 0.0
    other_ms: float = 0.0
    turns_ms: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_pico: int = 0
    unpriced: bool = False
    model_calls: int = 0
    tool_runs: int = 0
    failures: int = 0
    rules_only: bool = False
    models: dict[str, OfModel] = {}
    tools_cost_pico: int = 0


_WAITS_FOR: Final = {
    "approval": "approval of {tool}/{function}",
    "client": "the client's result",
    "timer": "a time",
    "event": "an outside event",
    "session": "subagent {session_id}",
    "place": "a place of {tool}",
}


def turns_of(events: Sequence[dict[str, Any]], *, now: datetime | None = None) -> list[Turn]:
    """`now`: up to when what has not ended yet lasts so far; without it, up to the last event."""
    reader = _Reader()
    for event in events:
        reader.read(event)
    if now is not None:
        reader.last_until(now)
    for turn in reader.turns:
        turn.entries.sort(key=lambda entry: entry.begin_ms)
    return [turn for turn in reader.turns if turn.entries or turn.number]


def spent(turns: Sequence[Turn]) -> Spent:
    found = Spent()
    for turn in turns:
        for entry in turn.entries:
            found.cost_pico += entry.cost_pico or 0
            found.unpriced = found.unpriced or entry.cost_pico is None
            found.tokens_in += entry.tokens[0] if entry.tokens else 0
            found.tokens_out += entry.tokens[1] if entry.tokens else 0
            found.failures += entry.failed and entry.kind in ("model", "tool")
            found.model_calls += entry.kind == "model"
            found.tool_runs += entry.kind == "tool"
            found.tools_cost_pico += (entry.cost_pico or 0) if entry.kind == "tool" else 0
            if entry.kind == "model":
                _count_model(found.models.setdefault(entry.title, OfModel()), entry)
        if not turn.number:
            continue
        kinds = {kind: _covered(turn, kind) for kind in ("model", "wait")}
        kinds["tool"] = _covered(turn, "tool", "wait") - kinds["wait"]
        lasted = turn.end_ms - turn.begin_ms
        found.turns_ms += lasted
        found.model_ms += kinds["model"]
        found.tools_ms += kinds["tool"]
        found.waiting_ms += kinds["wait"]
        found.other_ms += max(0.0, lasted - sum(kinds.values()))
    asked = [entry.title for turn in turns for entry in turn.entries if entry.kind == "model"]
    found.rules_only = bool(asked) and all(title.startswith("rules/") for title in asked)
    return found


def _count_model(used: OfModel, entry: Entry) -> None:
    used.calls += 1
    used.tokens_in += entry.tokens[0] if entry.tokens else 0
    used.tokens_out += entry.tokens[1] if entry.tokens else 0
    used.cost_pico += entry.cost_pico or 0


def _covered(turn: Turn, *kinds: str) -> float:
    """The length of what the entries of these kinds cover together."""
    total, until = 0.0, turn.begin_ms
    for entry in sorted((one for one in turn.entries if one.kind in kinds), key=lambda one: one.begin_ms):
        total += max(0.0, entry.end_ms - max(entry.begin_ms, until))
        until = max(until, entry.end_ms)
    return total


class _Reader:
    def __init__(self) -> None:
        self.turns = [Turn(number=0, begin_ms=0.0, end_ms=0.0, entries=[])]
        self._zero: datetime | None = None
        self._now = 0.0
        self._calls: dict[str, tuple[str, Any]] = {}
        self._started: dict[str, float] = {}
        self._awaited: set[str] = set()
        self._waiting: Entry | None = None
        self._error = ""

    def last_until(self, now: datetime) -> None:
        """What has not ended lasts until `now`."""
        if self._zero is None:
            return
        self._now = max(self._now, (now - self._zero).total_seconds() * 1000)
        turn = self.turns[-1]
        if self._waiting is not None:
            self._waiting.end_ms, self._waiting.open = self._now, True
        if turn.number:
            turn.end_ms = self._now

    def read(self, event: dict[str, Any]) -> None:
        self._zero = self._zero or _at(event)
        self._now = (_at(event) - self._zero).total_seconds() * 1000
        ours = event.get("freehold") or {}
        if self._waiting is not None and event["type"] != "freehold.call_awaited":
            self._waiting.end_ms, self._waiting = self._now, None
        match event["type"]:
            case "user.message":
                self._add("said", "", outcome=_text(event["content"]))
            case "session.status_running" if "turn" in ours:
                self._begin(ours["turn"])
            case "span.model_request_end":
                self._model(event, ours)
            case "agent.message":
                self._add("answer", "", outcome=_text(event["content"]))
            case "agent.tool_use" | "agent.custom_tool_use" if "session_thread_id" not in event:
                self._calls[event["id"]] = (event["name"], event["input"])
                self._started[event["id"]] = self._now
            case "freehold.tool_started":
                name, _ = self._calls.get(event["tool_use_id"], (event["function"], None))
                self._calls[event["tool_use_id"]] = (name, event["input"])
                self._started[event["tool_use_id"]] = self._now
                if event["attempt"] > 1:
                    name, _ = self._calls[event["tool_use_id"]]
                    self._add("trouble", f"{name} was cut off: attempt {event['attempt']}")
            case "freehold.call_awaited":
                self._awaited.add(event["tool_use_id"])
            case "agent.tool_result" | "user.custom_tool_result":
                self._result(event, ours)
            case "session.status_idle" if event["stop_reason"]["type"] == "requires_action":
                self._wait(ours)
            case "freehold.session_waits":
                self._wait(ours)
            case "user.tool_confirmation":
                verb = "allowed" if event["result"] == "allow" else "denied"
                reason = f": {ours['reason']}" if ours.get("reason") else ""
                self._add(
                    "note", f"{verb} by {ours.get('by') or 'somebody'}{reason}", detail=ours.get("input")
                )
            case "session.error":
                self._error = event["error"]["message"]
            case "session.status_idle" | "session.status_terminated":
                self._end(ours)
            case _:
                self._aside(event, ours)

    def _aside(self, event: dict[str, Any], ours: dict[str, Any]) -> None:
        match event["type"]:
            case "user.interrupt":
                reason = f": {ours['reason']}" if ours.get("reason") else ""
                self._add("note", f"asked to stop the {ours.get('scope', 'turn')}{reason}")
            case "freehold.pause_requested":
                self._add("note", f"asked to pause{': ' + ours['reason'] if ours.get('reason') else ''}")
            case "freehold.resume_requested":
                self._add("note", "asked to go on")
            case "freehold.session_forked":
                model = f", with {event['model']}" if event["model"] else ""
                origin = event["origin"]
                self._add(
                    "note", f"forked from {origin['session_id']} behind its event {origin['seq']}{model}"
                )
            case "agent.thread_context_compacted":
                cost = (ours.get("cost") or {}).get("pico", 0)
                tokens = f"{ours.get('tokens_before', 0):,} → {ours.get('tokens_after', 0):,} tokens"
                self._add("note", f"context compacted, {tokens}", cost_pico=cost)
            case _:
                pass

    def _begin(self, number: int) -> None:
        """What was said just before belongs to the turn that it begins."""
        before = self.turns[-1]
        taken = before.entries if not before.number else []
        said = [entry for entry in taken if entry.kind == "said"]
        before.entries = [entry for entry in before.entries if entry not in said]
        begin = min([self._now, *(entry.begin_ms for entry in said)])
        self.turns.append(Turn(number=number, begin_ms=begin, end_ms=self._now, entries=said))

    def _end(self, ours: dict[str, Any]) -> None:
        turn = self.turns[-1]
        turn.end_ms, turn.outcome = self._now, ours.get("outcome", "")
        turn.message, self._error = ours.get("message") or self._error, ""
        self.turns.append(Turn(number=0, begin_ms=self._now, end_ms=self._now, entries=[]))

    def _model(self, event: dict[str, Any], ours: dict[str, Any]) -> None:
        usage, lasted = event["model_usage"], ours.get("duration_ms") or 0.0
        tokens_in = sum(
            usage[name] for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        )
        failed = bool(event.get("is_error"))
        cost = ours.get("cost")
        entry = Entry(
            kind="model",
            begin_ms=max(0.0, self._now - lasted),
            end_ms=self._now,
            title=ours.get("served_by") or ours.get("model") or "model",
            outcome=_failure(ours) if failed else "",
            failed=failed,
            tokens=(tokens_in, usage["output_tokens"]),
            cost_pico=cost["pico"] if cost else (0 if failed else None),
        )
        entries = self.turns[-1].entries
        last = entries[-1] if entries else None
        place = (
            len(entries) - 1
            if last is not None and last.kind == "answer" and last.end_ms == self._now
            else None
        )
        self._insert(entry, place)

    def _result(self, event: dict[str, Any], ours: dict[str, Any]) -> None:
        call_id = event.get("tool_use_id") or event.get("custom_tool_use_id") or ""
        name, given = self._calls.get(call_id, ("tool", None))
        by_client = event["type"] == "user.custom_tool_result"
        lasted = ours.get("duration_ms")
        begin = self._now - (lasted or 0.0)
        if lasted is None or call_id in self._awaited:
            begin = self._started.get(call_id, self._now)
        self._awaited.discard(call_id)
        self._insert(
            Entry(
                kind="wait" if by_client else "tool",
                begin_ms=max(0.0, self._now if by_client else begin),
                end_ms=self._now,
                title=f"{name} (by the client)" if by_client else name,
                detail=given,
                outcome=_text(event["content"]),
                failed=bool(event.get("is_error")),
                cost_pico=(ours.get("cost") or {}).get("pico", 0),
            )
        )

    def _wait(self, ours: dict[str, Any]) -> None:
        if ours.get("why") == "input":
            return
        for_what = [
            _WAITS_FOR[one["awaits"]["type"]].format_map(one["awaits"]) for one in ours.get("calls", ())
        ]
        title = "paused" if ours.get("why") == "paused" else f"waits for {' and '.join(for_what)}"
        self._waiting = Entry(kind="wait", begin_ms=self._now, end_ms=self._now, title=title)
        self._insert(self._waiting)

    def _add(self, kind: EntryKind, title: str, **more: Any) -> None:
        self._insert(Entry(kind=kind, begin_ms=self._now, end_ms=self._now, title=title, **more))

    def _insert(self, entry: Entry, place: int | None = None) -> None:
        turn = self.turns[-1]
        turn.entries.insert(len(turn.entries) if place is None else place, entry)
        turn.end_ms = max(turn.end_ms, entry.end_ms)


def _failure(ours: dict[str, Any]) -> str:
    attempts = ours.get("attempts", 1)
    return f"{ours.get('code')}" + (f" after {attempts} attempts" if attempts > 1 else "")


def _at(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["processed_at"])


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(block.get("text") or f"({block['type']})" for block in content or ())
