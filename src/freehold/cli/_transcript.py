"""A turn as it happens, for people: every step with what it did, how long it took and what it cost; the answer as it comes.

Reads the sessions API's events (with previews and `freehold.*`); the same code shows a live turn and one of long ago.
"""

from typing import Any, Final, Literal

from msgspec import Struct, field
from rich.markup import escape

from freehold.cli._output import Flow, Output, calls_counted, counted, seconds, short
from freehold.client.client import StreamedEvent

DETAIL_WIDTH_MAX: Final = 100
DETAIL_INDENT: Final = 6


class Totals(Struct):
    """Of what was shown."""

    model_calls: int = 0
    tool_runs: int = 0
    failed_tool_runs: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_pico: int = 0
    duration_ms: float = 0.0
    unpriced: bool = False


class Step(Struct, frozen=True, kw_only=True):
    """A model call (then `name` is the model) or a tool run."""

    kind: Literal["model", "tool"]
    name: str
    input: Any = None
    failed: bool
    duration_ms: float
    cost_pico: int | None


class Ended(Struct):
    """How the turn ended: `outcome` as in the log (`completed`, `limit_reached`, `failed`, `cancelled`, `refused`); or `waits`, for what
    `message` says."""

    outcome: str
    message: str


class Transcript(Struct):
    """Feed it events; it prints. `asked_rules` becomes true when an answer came from no language model."""

    output: Output
    totals: Totals = field(default_factory=Totals)
    asked_rules: bool = False
    error: str = ""
    steps: list[Step] = field(default_factory=list)
    answer: str = ""
    _names: dict[str, tuple[str, Any]] = field(default_factory=dict)
    _shown_previews: dict[str, str] = field(default_factory=dict)
    _mid_line: bool = False
    _answered: bool = False
    _flow: Flow | None = None

    def feed(self, event: StreamedEvent) -> Ended | None:
        """Returns how the turn ended, when it did."""
        body = event.body
        match event.type:
            case "event_delta":
                self._preview(body)
            case "event_start" if body["event"]["id"] in self._shown_previews:
                self._again(body["event"]["id"])
            case "agent.message":
                self._message(body)
            case "agent.tool_use" | "agent.custom_tool_use":
                self._names[body["id"]] = (body["name"], body["input"])
            case "agent.tool_result":
                self._result(body)
            case "span.model_request_end":
                self._model_call(body)
            case "session.error":
                self.error = body["error"]["message"]
            case "session.status_idle" if body["stop_reason"]["type"] == "requires_action":
                self._end_line()
                return Ended("waits", self._asked(body))
            case "session.status_idle" | "session.status_terminated":
                self._end_line()
                return Ended(body["freehold"]["outcome"], body["freehold"]["message"] or self.error)
            case _:
                pass
        return None

    def _asked(self, body: dict[str, Any]) -> str:
        told = []
        for call in body["freehold"]["calls"]:
            awaits = call["awaits"]
            if awaits["type"] == "approval":
                told.append(f"approval of {awaits['tool']}/{awaits['function']} ({call['call_id']})")
            elif awaits["type"] == "client":
                name, _ = self._names.get(call["call_id"], ("a tool", None))
                told.append(f"the client's result of {name} ({call['call_id']})")
        for call_id in body["stop_reason"]["event_ids"]:
            thread, _, own_id = call_id.partition(".")
            if thread.startswith("sthr_"):
                name, _ = self._names.get(call_id, ("a tool", None))
                told.append(f"{name} of subagent sess_{thread.removeprefix('sthr_')} ({own_id})")
        return ", ".join(told)

    def summary(self) -> str:
        totals = self.totals
        money = f"${totals.cost_pico / 10**12:.6f}".rstrip("0").rstrip(".") if totals.cost_pico else "$0"
        tokens = f"{totals.input_tokens:,} + {totals.output_tokens:,} tokens"
        parts = [
            calls_counted(totals.model_calls, rules_only=self.asked_rules),
            counted(totals.tool_runs, "tool run"),
            *([tokens] if totals.input_tokens or totals.output_tokens else []),
            f"{money}{' and calls without a known price' if totals.unpriced else ''}",
        ]
        return " · ".join(parts)

    def _preview(self, body: dict[str, Any]) -> None:
        text = body["delta"]["content"].get("text", "")
        event_id = body["event_id"]
        if event_id not in self._shown_previews:
            self._line("")
        self._shown_previews[event_id] = self._shown_previews.get(event_id, "") + text
        self._write(text)

    def _again(self, event_id: str) -> None:
        """The answer broke off and begins anew: what was shown of it no longer counts."""
        if self._shown_previews.pop(event_id):
            self._line("[dim](the answer broke off; it is being asked for again)[/dim]")

    def _message(self, body: dict[str, Any]) -> None:
        """What the preview left out is written; where it was something else, all of it."""
        self.answer = text = _text(body["content"])
        shown = self._shown_previews.pop(body["id"], None)
        if shown is None or not text.startswith(shown):
            self._line("")
            self._write(text)
        else:
            self._write(text[len(shown) :])
        self._end_line()
        self._answered = True

    def _result(self, body: dict[str, Any]) -> None:
        name, arguments = self._names.get(body["tool_use_id"], ("tool", {}))
        extra = body.get("freehold") or {}
        failed = bool(body.get("is_error"))
        self.totals.tool_runs += 1
        self.totals.failed_tool_runs += failed
        duration, cost = extra.get("duration_ms", 0.0), extra.get("cost") or {}
        self.totals.cost_pico += cost.get("pico", 0)
        self.steps.append(
            Step(
                kind="tool",
                name=name,
                input=arguments,
                failed=failed,
                duration_ms=duration,
                cost_pico=cost.get("pico", 0),
            )
        )
        mark = "[red]✗[/red]" if failed else "[green]●[/green]"
        spent = f"{seconds(duration)}  {cost.get('shown', '$0')}"
        width = min(DETAIL_WIDTH_MAX, self.output.out.width - DETAIL_INDENT)
        self._line(f"  {mark} [bold]{escape(name)}[/bold] [dim]{spent}[/dim]")
        self._line(f"      [cyan]{escape(short(arguments, width=width))}[/cyan]")
        text = " ".join(block.get("text", f"({block['type']})") for block in body.get("content") or [])
        style = "red" if failed else "dim"
        self._line(f"      [{style}]{escape(short(text, width=width))}[/{style}]")

    def _model_call(self, body: dict[str, Any]) -> None:
        usage, extra = body["model_usage"], body["freehold"]
        tokens_in = (
            usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]
        )
        totals = self.totals
        totals.model_calls += 1
        totals.input_tokens += tokens_in
        totals.output_tokens += usage["output_tokens"]
        totals.duration_ms += extra.get("duration_ms") or 0.0
        cost = extra.get("cost")
        totals.cost_pico += cost["pico"] if cost else 0
        totals.unpriced = totals.unpriced or cost is None
        served = extra.get("served_by") or extra.get("model") or "model"
        self.steps.append(
            Step(
                kind="model",
                name=served,
                failed=bool(body.get("is_error")),
                duration_ms=extra.get("duration_ms") or 0.0,
                cost_pico=cost["pico"] if cost else None,
            )
        )
        self.asked_rules = self.asked_rules or served.startswith("rules/")
        spent = (
            f"{tokens_in} + {usage['output_tokens']} tokens  " if tokens_in or usage["output_tokens"] else ""
        )
        price = cost["shown"] if cost else "price unknown"
        mark = "[red]✗[/red]" if body.get("is_error") else "[blue]◆[/blue]"
        told = f"[dim]{seconds(extra.get('duration_ms') or 0)}  {spent}{price}[/dim]"
        self._line(f"{chr(10) if self._answered else ''}  {mark} {escape(served)} {told}")
        self._answered = False

    def _write(self, text: str) -> None:
        if text and not self.output.as_json:
            if self._flow is None:
                self._flow = Flow(self.output.out.width)
            self._print(self._flow.feed(text))
            self._mid_line = not text.endswith("\n")

    def _print(self, text: str) -> None:
        self.output.out.print(escape(text), end="", soft_wrap=True)

    def _line(self, text: str) -> None:
        self._end_line()
        self.output.say(text)

    def _end_line(self) -> None:
        if self._mid_line:
            if self._flow is not None:
                self._print(self._flow.end())
            self.output.say("")
            self._mid_line = False


def _text(content: list[dict[str, Any]]) -> str:
    return "".join(block.get("text", "") for block in content)
