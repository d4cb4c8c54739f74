"""Shows a session's timeline in a terminal of any width, with colours or without: marks say the same as colours do.

+ 1.2 s  ● stock_get {"keys":["SKU-1"]}      ░░░▓▓▓░░░░░░    40 ms               $0
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rich.cells import cell_len
from rich.markup import escape
from rich.text import Text

from freehold.cli._output import Output, calls_counted, counted, seconds, short
from freehold.cli._timeline import Entry, Spent, Turn, spent
from freehold.core import pricing

WIDTH_MAX: Final = 140
"""Of the columns; what isn't a terminal gets them so wide, and texts whole."""
TIME_WIDTH: Final = 9
LASTED_WIDTH: Final = 8
TOKENS_WIDTH: Final = 15
COST_WIDTH: Final = 10
TOKENS_FROM_WIDTH: Final = 70
SHOWN_FROM_MS: Final = 0.5
BARS_FROM_WIDTH: Final = 100
BAR_WIDTH: Final = 20
TEXT_CHARS_MAX: Final = 2000

_MARKS: Final = {
    "said": ("›", "bold"),
    "answer": (" ", ""),
    "model": ("◆", "blue"),
    "tool": ("●", "green"),
    "wait": ("◷", "yellow"),
    "note": ("·", "dim"),
    "trouble": ("!", "red"),
    "thought": ("·", "dim"),
}


class TimelineView:
    def __init__(self, output: Output) -> None:
        self._output = output
        self._width = min(output.out.width, WIDTH_MAX)
        self._whole = not output.out.is_terminal
        self._bar = BAR_WIDTH if self._width >= BARS_FROM_WIDTH else 0
        self._tokens = self._prices = True

    def show(
        self,
        turns: Sequence[Turn],
        *,
        subagents_pico: int = 0,
        between: Sequence[Callable[[], None]] = (),
    ) -> None:
        """The sums first; `between` them and the turns others tell theirs."""
        total = spent(turns)
        self._tokens = self._width >= TOKENS_FROM_WIDTH and bool(total.tokens_in or total.tokens_out)
        self._prices = bool(total.cost_pico or total.unpriced)
        self._sums(total, len([turn for turn in turns if turn.number]))
        self._costs(total, subagents_pico)
        for tell in between:
            tell()
        for turn in turns:
            self._turn(turn)

    def _sums(self, total: Spent, turns_count: int) -> None:
        parts = [
            counted(turns_count, "turn"),
            calls_counted(total.model_calls, rules_only=total.rules_only),
            counted(total.tool_runs, "tool run"),
        ]
        if total.failures:
            parts.append(f"[red]{total.failures} failed[/red]")
        if total.tokens_in:
            parts.append(f"{total.tokens_in:,} + {total.tokens_out:,} tokens")
        unpriced = " and calls without a known price" if total.unpriced else ""
        self._output.facts([*parts, f"{pricing.show(total.cost_pico)}{unpriced}"])
        if total.turns_ms:
            self._output.say(self._where(total))

    def _costs(self, total: Spent, subagents_pico: int) -> None:
        """What cost how much, where more than one thing did: the dearest first."""
        lines = [
            (
                f"{counted(one.calls, 'call')}, {one.tokens_in:,} + {one.tokens_out:,} tokens",
                name,
                one.cost_pico,
            )
            for name, one in total.models.items()
        ]
        lines += [("", "tools", total.tools_cost_pico), ("", "subagents", subagents_pico)]
        lines = sorted((line for line in lines if line[2]), key=lambda line: -line[2])
        if len(lines) < 2:
            return
        name_width = max(cell_len(name) for _, name, _ in lines)
        for told, name, cost in lines:
            self._output.say(
                f"  {pricing.show(cost):>{COST_WIDTH}}  {escape(name.ljust(name_width))}  [dim]{told}[/dim]".rstrip()
            )
        if subagents_pico:
            self._output.say(
                f"  [bold]{pricing.show(total.cost_pico + subagents_pico):>{COST_WIDTH}}[/bold]  together"
            )

    def _where(self, total: Spent) -> str:
        shares = (
            ("model", total.model_ms, "█", "blue"),
            ("tools", total.tools_ms, "▓", "green"),
            ("waiting", total.waiting_ms, "░", "yellow"),
            ("other", total.other_ms, "·", "dim"),
        )
        shown = [share[1] if share[1] >= SHOWN_FROM_MS else 0.0 for share in shares]
        cells = _apportioned(shown, max(10, min(40, self._width - 66)))
        bar = "".join(
            f"[{style}]{mark * count}[/{style}]"
            for (_, _, mark, style), count in zip(shares, cells, strict=True)
        )
        legend = "  ".join(
            f"[{style}]{mark}[/{style}] {name} {seconds(lasted)}"
            for name, lasted, mark, style in shares
            if lasted >= SHOWN_FROM_MS
        )
        return f"{bar}  {legend}"

    def _turn(self, turn: Turn) -> None:
        if turn.number:
            cost = sum(entry.cost_pico or 0 for entry in turn.entries)
            style = "" if turn.outcome in ("", "completed") else "bold yellow"
            outcome = turn.outcome or "goes on"
            head = f"Turn {turn.number}  [dim]{seconds(turn.end_ms - turn.begin_ms)} · {pricing.show(cost)} ·[/dim] "
            self._output.say(f"\n[bold]{head}[/bold]{f'[{style}]{outcome}[/{style}]' if style else outcome}")
        for entry in turn.entries:
            self._entry(entry, turn)
        if turn.message and turn.outcome != "completed":
            indent = " " * (TIME_WIDTH + 3)
            for line in _wrapped(self._output, turn.message, max(20, self._width - len(indent))):
                self._print(Text(f"{indent}{line}", style="red"))

    def _entry(self, entry: Entry, turn: Turn) -> None:
        if entry.kind in ("said", "answer"):
            self._words(entry)
            return
        mark, style = _MARKS[entry.kind]
        if entry.failed:
            mark, style = "✗", "red"
        given = "" if entry.detail is None else f" {short(entry.detail, width=TEXT_CHARS_MAX)}"
        columns = self._columns(entry, turn)
        room = self._width - TIME_WIDTH - 3 - sum(cell_len(one.plain) + 1 for one in columns)
        what = Text(entry.title, style="bold" if entry.kind in ("model", "tool") else "")
        what.append(given, style="cyan")
        line = Text(f"{_since(entry.begin_ms):>{TIME_WIDTH}} ", style="dim")
        line.append(f"{mark} ", style=style)
        if columns:
            what.truncate(max(8, room), overflow="ellipsis", pad=True)
        line.append_text(what)
        for column in columns:
            line.append(" ").append_text(column)
        self._print(line)
        if entry.outcome:
            self._outcome(entry)

    def _outcome(self, entry: Entry) -> None:
        indent = " " * (TIME_WIDTH + 3)
        room = TEXT_CHARS_MAX if self._whole else self._width - len(indent) - 2
        style = "red" if entry.failed else "dim"
        self._print(Text(f"{indent}→ {short(entry.outcome, width=room)}", style=style))

    def _columns(self, entry: Entry, turn: Turn) -> list[Text]:
        """The bar, how long, tokens, cost: where there is anything to measure."""
        if entry.kind not in ("model", "tool", "wait"):
            return []
        columns = [self._place(entry, turn)] if self._bar else []
        columns.append(Text(f"{seconds(entry.duration_ms):>{LASTED_WIDTH}}"))
        tokens = f"{entry.tokens[0]:,} + {entry.tokens[1]:,}" if entry.tokens and any(entry.tokens) else ""
        if self._tokens:
            columns.append(Text(f"{tokens:>{TOKENS_WIDTH}}", style="dim"))
        price = "no price" if entry.cost_pico is None else pricing.show(entry.cost_pico)
        if self._prices:
            columns.append(Text(f"{price if entry.kind != 'wait' else '':>{COST_WIDTH}}"))
        return columns

    def _place(self, entry: Entry, turn: Turn) -> Text:
        """When, within its turn."""
        whole = max(turn.end_ms - turn.begin_ms, 1.0)
        begin = min(self._bar - 1, int((entry.begin_ms - turn.begin_ms) / whole * self._bar))
        begin = max(0, begin)
        cells = max(1, round(entry.duration_ms / whole * self._bar))
        cells = min(cells, self._bar - begin)
        _, style = _MARKS[entry.kind]
        bar = Text("╌" * begin, style="dim")
        bar.append("━" * cells, style="red" if entry.failed else style)
        return bar.append("╌" * (self._bar - begin - cells), style="dim")

    def _words(self, entry: Entry) -> None:
        mark, style = _MARKS[entry.kind]
        first = f"{_since(entry.begin_ms):>{TIME_WIDTH}} "
        room = max(20, self._width - TIME_WIDTH - 3)
        for number, line in enumerate(_wrapped(self._output, entry.outcome.strip(), room)):
            head = Text(first if not number else " " * len(first), style="dim")
            head.append(f"{mark if not number else ' '} ", style=style)
            self._print(head.append(line, style=style))

    def _print(self, line: Text) -> None:
        line.rstrip()
        if not self._output.as_json:
            self._output.out.print(line, soft_wrap=True)


def _wrapped(output: Output, text: str, width: int) -> Iterator[str]:
    for paragraph in text.splitlines() or [""]:
        lines = Text(paragraph).wrap(output.out, width)
        yield from (line.plain.rstrip() for line in lines) if lines else iter([""])


def _apportioned(shares: Sequence[float], cells: int) -> list[int]:
    """Whole cells that add up; what is there at all has one."""
    total = sum(shares) or 1.0
    found = [max(1, round(share / total * cells)) if share / total > 0.002 else 0 for share in shares]
    largest = found.index(max(found))
    found[largest] = max(1, found[largest] + cells - sum(found))
    return found


def _since(ms: float) -> str:
    """Since the session's first event, as short as it stays exact enough."""
    moment = ms / 1000
    if moment < 100:
        return f"+{moment:.1f} s"
    hours, rest = divmod(int(moment), 3600)
    if hours >= 72:
        return f"+{hours // 24} d {hours % 24} h"
    return f"+{hours}:{rest // 60:02d}:{rest % 60:02d}"
