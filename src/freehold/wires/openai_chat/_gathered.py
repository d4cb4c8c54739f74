"""Wires, OpenAI chat: fields of a stream that nobody knows, put together as OpenAI's own SDK puts deltas together.

Texts and lists are joined, objects field by field; of anything else the last value counts.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

_EMPTY: Final = (b"null", b"[]", b"{}", b'""')
_CUSTOM_CALLS: Final = "custom_tool_calls"


class Gathered:
    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, list[Raw]] = {}

    def add(self, name: str, value: Raw) -> None:
        if bytes(value) not in _EMPTY:
            self._values.setdefault(name, []).append(value)

    def split(self, fields: dict[str, Raw], known: frozenset[str], prefix: str) -> dict[str, Any]:
        """Keeps the unknown fields, and returns the others."""
        for name, value in fields.items():
            if name not in known:
                self.add(prefix + name, value)
        return {name: value for name, value in fields.items() if name in known}

    def take_custom_calls(self) -> list[tuple[str, Raw]]:
        """Id and `custom` of each."""
        calls: dict[int, Any] = {}
        for json in self._values.pop(_CUSTOM_CALLS, ()):
            for call in msgspec.json.decode(json):
                place = call.pop("index", None) or 0
                call = {name: value for name, value in call.items() if value is not None}
                calls[place] = _joined(calls[place], call) if place in calls else call
        return [
            (call.get("id") or "", Raw(msgspec.json.encode(call.get("custom") or {})))
            for _, call in sorted(calls.items())
        ]

    def fields(self) -> dict[str, Raw]:
        """What is a field of the whole comes with every chunk, the same: of those the last counts."""
        return {name: _whole(name, values) for name, values in self._values.items()}


def _whole(name: str, values: Sequence[Raw]) -> Raw:
    if len(values) == 1 or not name.startswith(("choice.logprobs", "message.")):
        return values[-1]
    whole: Any = msgspec.json.decode(values[0])
    for value in values[1:]:
        whole = _joined(whole, msgspec.json.decode(value))
    return Raw(msgspec.json.encode(whole))


def _joined(before: Any, after: Any) -> Any:
    if before is None:
        return after
    if isinstance(before, str) and isinstance(after, str):
        return before + after
    if isinstance(before, list) and isinstance(after, list):
        return before + after
    if isinstance(before, dict) and isinstance(after, dict):
        joined = dict(before)
        for name, value in after.items():
            keeps = name in ("type", "id") and before.get(name)
            joined[name] = before[name] if keeps else _joined(before.get(name), value)
        return joined
    return before if after is None else after


def merged_details(details: Sequence[Raw]) -> str:
    """`reasoning_details` of many deltas as the array that must come back: pieces of one entry have its type and index."""
    merged: list[dict[str, Any]] = []
    for json in details:
        detail = msgspec.json.decode(json)
        last = merged[-1] if merged else None
        same = (
            last is not None
            and isinstance(detail, dict)
            and detail.get("type") in ("reasoning.text", "reasoning.summary")
            and (last.get("type"), last.get("index")) == (detail.get("type"), detail.get("index"))
        )
        if same and last is not None:
            merged[-1] = _piece_added(last, detail)
        else:
            merged.append(detail)
    return msgspec.json.encode(merged).decode()


def _piece_added(before: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
    joined = {**before, **{name: value for name, value in piece.items() if value is not None}}
    for name in ("text", "summary"):
        if isinstance(before.get(name), str) and isinstance(piece.get(name), str):
            joined[name] = before[name] + piece[name]
    return joined
