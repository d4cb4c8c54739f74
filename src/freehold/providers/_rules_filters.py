"""Filters of the `rules` provider's templates: numbers, dates and tables as people read them. Pure; no clock, no locale."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

TABLE_ROWS_MAX: Final = 200
DIGITS_MAX: Final = 12

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def number(value: Any, digits: int = 0) -> str:
    """`12345.678 | number(1)` is 12,345.7; half away from zero."""
    exact = Decimal(str(value))
    places = Decimal(1).scaleb(-min(int(digits), DIGITS_MAX))
    return f"{exact.quantize(places, rounding='ROUND_HALF_UP'):,f}"


def date_text(value: Any) -> str:
    """`2026-11-15` (or a time on that day) is 15 Nov 2026."""
    day = _day(value)
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def days_since(value: Any, earlier: Any) -> int:
    return (_day(value) - _day(earlier)).days


def plus_days(value: Any, count: Any) -> str:
    return (_day(value) + timedelta(days=int(count))).isoformat()


def records(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`{columns, rows}`, as the `sql` tool gives them, as one mapping a row."""
    columns = data["columns"]
    return [dict(zip(columns, row, strict=True)) for row in data["rows"]]


def listed(items: Iterable[Any], word: str = "and") -> str:
    """a, b and c."""
    words = [str(item) for item in items]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {word} {words[-1]}"


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A Markdown table; `columns` are keys and their titles, numbers stand to the right."""
    keys = list(columns)
    numeric = {key for key in keys if rows and all(_numeric(row.get(key)) for row in rows)}
    lines = [_line(columns.values()), _line("---:" if key in numeric else "---" for key in keys)]
    lines += [_line(_cell(row.get(key)) for key in keys) for row in rows[:TABLE_ROWS_MAX]]
    if len(rows) > TABLE_ROWS_MAX:
        lines.append(f"\n({len(rows) - TABLE_ROWS_MAX} more rows)")
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _numeric(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if _numeric(value):
        return number(value, 0 if float(value).is_integer() else 1)
    return " ".join(str(value).split()).replace("|", "\\|")


def _day(value: Any) -> date:
    return value if isinstance(value, date) else date.fromisoformat(str(value)[:10])
