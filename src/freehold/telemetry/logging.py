"""Telemetry: how log lines look. Every room logs through the standard library, one static event name and its fields:

    log.info("call.finished", extra={"session": session_id, "duration_ms": 12})

so a room needs nothing of this one. Here the root logger gets its handler: JSON lines for machines, aligned text for a
terminal. Not here: traces, metrics, records of calls. Prompts and answers are never logged.
"""

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO, TypeAlias

import msgspec

from freehold.core.errors import BadRequest, FreeholdError

Format: TypeAlias = Literal["auto", "json", "console"]
Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Redact: TypeAlias = Callable[[str], str]

LINE_CHARS_MAX: Final = 16_384
FIELD_CHARS_MAX: Final = 4_096
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LOUD: Final = ("asyncio", "asyncpg", "httpx2", "uvicorn.access", "uvicorn.error")
"""Libraries whose chatter below a warning nobody needs."""


def configure(
    level: str = "info", form: str = "auto", *, redact: Redact = str, stream: TextIO | None = None
) -> None:
    """Once, at start. `auto` is console on a terminal and JSON elsewhere. Raises BadRequest for an unknown word."""
    if level not in {"debug", "info", "warning", "error"}:
        raise BadRequest(f"expected debug, info, warning or error, got {level!r}", field="log.level")
    if form not in {"auto", "json", "console"}:
        raise BadRequest(f"expected auto, json or console, got {form!r}", field="log.format")
    out = stream or sys.stderr
    console = form == "console" or (form == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(Console(redact) if console else Json(redact))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave, and what the error knows that was logged with it."""
    fields = {name: value for name, value in vars(record).items() if name not in _OWN}
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, FreeholdError) and error.detail:
        fields.setdefault("detail", error.detail)
    return fields


class Json(logging.Formatter):
    """One object a line: `at`, `level`, `event`, `room`, then the fields, then `trace`."""

    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "room": record.name.removeprefix("freehold."),
        }
        line.update((name, _short(value)) for name, value in fields_of(record).items())
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)[-FIELD_CHARS_MAX:]
        return self._redact(msgspec.json.encode(line, enc_hook=str).decode())


class Console(logging.Formatter):
    """`12:30:01.123 warning provider.slow provider=openai` for people; colours are left to the terminal's own tools."""

    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        fields = "".join(f" {name}={_shown(value)}" for name, value in fields_of(record).items())
        line = f"{at} {record.levelname.lower():7} {record.getMessage()}{fields}"[:LINE_CHARS_MAX]
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return self._redact(line)


def _short(value: Any) -> Any:
    return value[:FIELD_CHARS_MAX] if isinstance(value, str) else value


def _shown(value: Any) -> str:
    text = str(_short(value))
    return (
        msgspec.json.encode(text).decode()
        if not text or any(c.isspace() or c in '"=' for c in text)
        else text
    )
