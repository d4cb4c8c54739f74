"""Wires: where in a client's own body something stands that the heart names in its own words (`messages[1].content[0]`, `tokens_max`).

For refusals only, so it may take its time, and no path is kept for a request that is served. Messages, tools and instructions are
found by decoding the body again with ever fewer of its items: the item with which the heart's part appears is the one that is
meant, however the client's wire splits and merges. Single settings have names, here for all wires at once. Not here: paths of what
a client's wire itself finds wrong, which are the client's from the start.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from freehold.core.errors import FreeholdError
from freehold.core.ports import Wire

_PLACE: Final = re.compile(
    r"(?P<head>messages|instructions|tools)(?P<steps>\[\d+\](?:\.content\[\d+\])*)(?P<rest>.*)", re.DOTALL
)
_STEP: Final = re.compile(r"\[(\d+)\]")

_LISTS: Final[Mapping[str, Sequence[str]]] = {
    "messages": ("messages", "input", "contents"),
    "instructions": ("system", "systemInstruction.parts", "messages", "input"),
    "tools": ("tools", "toolConfig.tools"),
}
"""Of the heart's lists, where wires have them at a body's top."""

_INNER: Final = (
    "tool_calls",
    "functionDeclarations",
    "content",
    "parts",
    "toolResult.content",
    "functionResponse.parts",
    "output",
)
"""Lists inside an item or a block. Before `content` stands what the heart has after it."""

_ASIDE: Final = ("type", "cache_control")

_WORDS: Final[Mapping[str, Sequence[str]]] = {
    "messages": ("messages", "input", "contents"),
    "tokens_max": (
        "max_completion_tokens", "max_tokens", "max_output_tokens", "inferenceConfig.maxTokens", "generationConfig.maxOutputTokens",
    ),
    "tools": ("tools", "toolConfig.tools"),
    "tool_choice": ("tool_choice", "toolConfig.toolChoice", "toolConfig.functionCallingConfig"),
    "tool_choice.parallel": ("parallel_tool_calls", "tool_choice.disable_parallel_tool_use", "tool_choice"),
    "reasoning": (
        "reasoning_effort", "reasoning", "thinking", "output_config.effort", "generationConfig.thinkingConfig",
        "additionalModelRequestFields.thinking", "additionalModelRequestFields.reasoning_effort", "outputConfig.effort",
    ),
    "reasoning.effort": (
        "reasoning_effort", "reasoning.effort", "output_config.effort", "generationConfig.thinkingConfig.thinkingLevel",
        "outputConfig.effort", "additionalModelRequestFields.reasoning_effort",
    ),
    "response_format": (
        "response_format", "text.format", "output_config.format", "output_format", "outputConfig.textFormat",
        "generationConfig.responseJsonSchema", "generationConfig.responseSchema", "generationConfig.responseMimeType",
    ),
    "response_format.type": ("response_format.type", "text.format.type", "generationConfig.responseMimeType"),
    "stop": ("stop", "stop_sequences", "inferenceConfig.stopSequences", "generationConfig.stopSequences"),
    "temperature": ("temperature", "inferenceConfig.temperature", "generationConfig.temperature"),
    "top_p": ("top_p", "inferenceConfig.topP", "generationConfig.topP"),
    "top_k": ("top_k", "generationConfig.topK", "additionalModelRequestFields.top_k"),
    "seed": ("seed", "generationConfig.seed"),
    "user": ("user", "metadata.user_id"),
}  # fmt: skip
"""What the heart calls so, in the words of those wires that have it: the first that a body has is meant."""

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def path_in(wire: Wire, body: bytes, field: str) -> str:
    """`field`, a path in the heart's words, as the path in `body`, a request of `wire`; as it is where it is not found there."""
    try:
        tree = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return field
    if not isinstance(tree, dict):
        return field
    place = _PLACE.fullmatch(field)
    if place is None:
        return _in_words(tree, field)
    steps = [int(step) for step in _STEP.findall(place["steps"])]
    return _Search(wire, tree, place["head"], steps).path(place["rest"]) or field


def _in_words(tree: dict[str, Any], field: str) -> str:
    return next((found for name in _WORDS.get(field, ()) if (found := _spelled(tree, name))), field)


def _spelled(tree: Any, path: str) -> str | None:
    """`path` as the body spells it: some clients of Google's write their names with underscores."""
    holder, name = _reached(tree, path)
    if name is None:
        return None
    head, dot, _ = path.rpartition(".")
    return f"{_spelled(tree, head)}{dot}{name}" if holder is not tree else name


def _reached(tree: Any, path: str) -> tuple[Any, str | None]:
    """What holds the last name of a dotted path, and that name as it is spelled there."""
    head, _, last = path.rpartition(".")
    holder = tree
    if head:
        above, name = _reached(tree, head)
        holder = above[name] if name is not None else None
    if not isinstance(holder, dict):
        return None, None
    return holder, next((name for name in holder if _same(name, last)), None)


def _same(name: str, wanted: str) -> bool:
    return name == wanted or name.replace("_", "").lower() == wanted.lower()


class _Search:
    """Cuts `tree` down, list by list, until the place is the last thing in it."""

    def __init__(self, wire: Wire, tree: dict[str, Any], head: str, steps: Sequence[int]) -> None:
        self._wire = wire
        self._tree = tree
        self._head = head
        self._steps = steps

    def path(self, rest: str) -> str | None:
        """With `rest`, which is the client's already, behind it."""
        item, path = self._last_of(self._tree, _LISTS[self._head])
        if path is None:
            return None
        for _ in range(1, len(self._steps) + (self._head == "tools")):
            inner, at = self._last_of(item, _INNER)
            if at is None:
                break
            item, path = inner, f"{path}.{at}"
        return path + (rest or self._named(item))

    def _named(self, item: Any) -> str:
        """The name under which a part says what it is, where it has one."""
        if len(self._steps) < 2 or not isinstance(item, dict):
            return ""
        said = [name for name in item if name not in _ASIDE]
        if item.get("type") in said:
            return f".{item['type']}"
        if "role" in item:
            return ".content" if "content" in item else ""
        return f".{said[0]}" if len(said) == 1 and "type" not in item else ""

    def _last_of(self, holder: Any, lists: Sequence[str]) -> tuple[Any, str | None]:
        """The item of the first of these lists with which the place appears, and its path from `holder`."""
        for path in lists:
            inside, name = _reached(holder, path)
            if name is None or not isinstance(inside[name], list):
                continue
            spelled = _spelled(holder, path)
            count = self._needed(inside, name)
            if count is not None:
                return inside[name][-1], f"{spelled}[{count - 1}]"
        return None, None

    def _needed(self, holder: dict[str, Any], name: str) -> int | None:
        """Of this list, so many items; it is cut to them. None where the place is there without any, and the list goes."""
        items = holder[name]

        def suffices(count: int) -> bool:
            holder[name] = items[:count]
            return self._is_there()

        if suffices(0):
            del holder[name]
            if not self._is_there():
                holder[name] = []
            return None
        if not suffices(len(items)):
            return None
        low, high = 0, len(items)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if suffices(middle) else (middle, high)
        suffices(high)
        return high

    def _is_there(self) -> bool:
        try:
            request = self._wire.decode_request(_encode(self._tree))
        except FreeholdError:
            return False
        found: Any = request
        for name, step in zip([self._head, *["content"] * (len(self._steps) - 1)], self._steps, strict=True):
            inside = getattr(found, name, ())
            if step >= len(inside):
                return False
            found = inside[step]
        return True
