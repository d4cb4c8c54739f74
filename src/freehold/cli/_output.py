"""What commands print: for people with colours where a terminal is, for programs in JSON. Progress goes to standard error."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

WIDE: Final = 10_000
"""Characters in a line where no terminal folds it: nothing is cut off on the way to a file or a program."""

GAP: Final = 2
"""Between a table's columns."""
CUT_WIDTH_MIN: Final = 8
JUST_NOW: Final = timedelta(seconds=5)

_PIECES: Final = re.compile(r"\n|[^\S\n]+|\S+")
_ENCODER: Final = msgspec.json.Encoder()


class Output:
    """`out` is standard output, `note` standard error. With `as_json`, standard output holds JSON only."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
        self.note = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else WIDE)

    def json(self, value: object) -> None:
        sys.stdout.write(msgspec.json.format(_ENCODER.encode(value), indent=2).decode() + "\n")
        sys.stdout.flush()

    def json_line(self, value: object) -> None:
        sys.stdout.write(_ENCODER.encode(value).decode() + "\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """For people only."""
        if not self.as_json:
            self.out.print(text)

    def done(self, answer: object, text: str) -> None:
        """What was done: the answer as JSON, or `text` for people."""
        if self.as_json:
            self.json(answer)
        else:
            self.out.print(text)

    def command(self, text: str) -> None:
        """For people to copy: a terminal may fold it, but no line break stands in it."""
        if not self.as_json:
            self.out.print(escape(text), soft_wrap=True)

    def progress(self, text: str) -> None:
        self.note.print(f"[dim]{escape(text)}[/dim]")

    def warn(self, text: str) -> None:
        self.note.print(f"[yellow]warning:[/yellow] {escape(text)}")

    def error(self, kind: str, message: str) -> None:
        if self.as_json:
            self.json({"error": {"type": kind, "message": message}})
        else:
            self.note.print(f"[red]error:[/red] {escape(message)}")

    def facts(self, parts: Sequence[str], *, style: str = "") -> None:
        """For people, in a line; or where a terminal is too narrow, in several, each of whole parts."""
        line = ""
        for part in parts:
            longer = f"{line} · {part}" if line else part
            if line and self.out.is_terminal and Text.from_markup(longer).cell_len > self.out.width:
                self.out.print(line, style=style)
                longer = part
            line = longer
        self.out.print(line, style=style)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        empty: str,
        cut: Sequence[str] = (),
        whole: Sequence[str] = (),
        below: Sequence[str] = (),
    ) -> None:
        """Plain columns; nothing is cut off where output isn't a terminal. Where one is too narrow, the columns `below` are told beneath each row, and
        the columns `cut` are cut, one after the other (to nothing, where that is too little to read); if that is not enough, what else there is is
        folded, but for `whole` and the first: what is to be copied stands in one piece."""
        found = list(rows)
        if not found:
            self.say(f"[dim]{escape(empty)}[/dim]")
            return
        widths = {
            column: max(cell_len(column), *(cell_len(row[place]) for row in found))
            for place, column in enumerate(columns)
        }
        beneath: Sequence[str] = ()
        if self.out.is_terminal:
            if _total(widths) > self.out.width:
                beneath = below
                widths = {column: width for column, width in widths.items() if column not in below}
            _cut(widths, cut, self.out.width)
        folded = self.out.is_terminal and _total(widths) > self.out.width
        shown = [dict(zip(columns, row, strict=True)) for row in found]
        for part in [[one] for one in shown] if beneath else [shown]:
            table = Table(
                box=None,
                pad_edge=False,
                header_style="bold",
                show_edge=False,
                show_header=part[0] is shown[0],
            )
            for column, width in widths.items():
                table.add_column(
                    column,
                    overflow="ellipsis" if column in cut else "fold",
                    no_wrap=not folded or column in {columns[0], *whole, *cut},
                    min_width=width if beneath and not folded else None,
                    max_width=width,
                )
            for row in part:
                table.add_row(*(escape(row[column]) for column in widths))
            self.out.print(table)
            if beneath:
                told = [f"{column.lower()} {escape(part[0][column])}" for column in beneath]
                self.facts(told, style="dim")


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _cut(widths: dict[str, int], columns: Sequence[str], room: int) -> None:
    for column in columns:
        over = _total(widths) - room
        if over <= 0:
            return
        if widths[column] - over >= CUT_WIDTH_MIN:
            widths[column] -= over
        else:
            del widths[column]


class Flow:
    """Text that comes in pieces, broken between words at a terminal's width. What it gives back may be written at once."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._column = 0
        self._gap = ""
        self._word = ""

    def feed(self, text: str) -> str:
        """A word that may not be whole yet is kept back."""
        out = []
        for piece in _PIECES.findall(text):
            if piece == "\n":
                out += [self.end(), "\n"]
            elif piece.isspace():
                out.append(self._flush())
                self._gap += piece
            else:
                self._word += piece
        return "".join(out)

    def end(self) -> str:
        """What was kept back; the next piece begins a line."""
        last = self._flush()
        self._column, self._gap = 0, ""
        return last

    def _flush(self) -> str:
        if not self._word:
            return ""
        word, gap = self._word, self._gap
        self._word = self._gap = ""
        if self._column and self._column + cell_len(gap + word) > self._width:
            self._column = cell_len(word)
            return f"\n{word}"
        self._column += cell_len(gap + word)
        return gap + word


def age(moment: str) -> str:
    """`3 min`, since an ISO 8601 moment."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def ago(moment: str) -> str:
    """`3 min ago`, for an ISO 8601 moment."""
    recent = datetime.now(UTC) - datetime.fromisoformat(moment) < JUST_NOW
    return "just now" if recent else f"{age(moment)} ago"


def counted(count: int, what: str, many: str = "") -> str:
    """`1 fork`, `2 forks`. `many` where it is not just an s more."""
    return f"{count:,} {what if count == 1 else many or f'{what}s'}"


def calls_counted(count: int, *, rules_only: bool) -> str:
    """Rules are no model, and no screen says that they are."""
    return counted(count, "step by rules", "steps by rules") if rules_only else counted(count, "model call")


def short(value: Any, *, width: int) -> str:
    """One line of at most `width` characters."""
    text = value if isinstance(value, str) else _ENCODER.encode(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


_UNITS: Final = (
    (2 * 86_400_000, 86_400_000, "d"),
    (6_000_000, 3_600_000, "h"),
    (100_000, 60_000, "min"),
    (1_000, 1_000, "s"),
)
"""From so many milliseconds on, in units of so many: numbers of people's size."""


def seconds(milliseconds: float) -> str:
    for begin, size, unit in _UNITS:
        if milliseconds >= begin:
            return f"{milliseconds / size:.1f} {unit}"
    return f"{milliseconds:.0f} ms"
