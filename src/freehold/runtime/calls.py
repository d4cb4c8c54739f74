"""Runtime: the tool calls of an answer, before anything runs. Pure. What runs them is tool_step.py, when is decide.py's matter.

Models get calls wrong in ways that are the same everywhere: an id used twice or missing, a function that does not exist,
arguments that are no JSON or are cut off. Each has an answer here that tells the model what to do instead.
"""

import difflib
from collections.abc import Collection, Mapping
from typing import Final, Literal

import msgspec
from msgspec import Struct, structs

from freehold.core.errors import BadRequest
from freehold.core.messages import AnswerPart, JsonObject, Text, ToolCall
from freehold.core.resources import Approval, Effect
from freehold.core.session import (
    ToolFinished,
    ToolStarted,
)
from freehold.core.session_state import OpenCall, SessionState

NAMES_LISTED_MAX: Final = 64
CALL_ID_CHARS_MAX: Final = 64


class PlannedFunction(Struct, frozen=True):
    """What a function that the model may call stands for. `timeout_s` bounds one attempt, `version` is the tool's declaration's.
    `limited`: the tool may only run so many times at once, by all workers together (core/places.py)."""

    tool: str
    function: str
    effect: Effect
    timeout_s: float
    version: int = 0
    settled_by: Literal["run", "client", "timer"] = "run"
    approval: Approval | None = None
    limited: bool = False


class Claim(Struct, frozen=True):
    """One attempt to be made: what is written to the log before it, and the parsed arguments."""

    started: ToolStarted
    arguments: JsonObject


def with_unique_ids(content: tuple[AnswerPart, ...], state: SessionState) -> tuple[AnswerPart, ...]:
    """Every tool call gets an id that this session has not seen. Some vendors number anew in each answer, or send none."""
    seen: set[str] = set()
    fixed: list[AnswerPart] = []
    for index, part in enumerate(content):
        if isinstance(part, ToolCall):
            if (
                not part.id
                or len(part.id) > CALL_ID_CHARS_MAX
                or part.id in seen
                or part.id in state.call_ids
            ):
                part = structs.replace(part, id=_new_id(state, seen, index))
            seen.add(part.id)
        fixed.append(part)
    return tuple(fixed)


def _new_id(state: SessionState, seen: Collection[str], index: int) -> str:
    """Made of the answer's place, so that deciding again on the same log gives the same; `_` until nobody has it."""
    made = f"call_{state.turn}_{state.turn_steps + 1}_{index}"
    while made in seen or made in state.call_ids:
        made += "_"
    return made


def key_of(session_id: str, call: OpenCall) -> str:
    """The idempotency key: the call's place in its session's log, the same on every attempt and on every machine."""
    turn, step, index = call.place
    return f"{session_id}.{turn}.{step}.{index}"


def meant(
    call: OpenCall, functions: Mapping[str, PlannedFunction], *, cut: bool
) -> tuple[PlannedFunction, JsonObject] | ToolFinished:
    """What the model's words stand for, or the answer that says why they stand for nothing. `cut`: the answer ended in this call."""
    planned = functions.get(call.call.name)
    if planned is None:
        return refused(call, "not_found", _unknown(call.call.name, functions))
    try:
        return planned, parse_arguments(call.call.arguments, cut=cut)
    except BadRequest as error:
        return refused(call, error.code, error.message)


def claim(
    session_id: str, call: OpenCall, planned: PlannedFunction, text: str, arguments: JsonObject
) -> Claim:
    """The first attempt of a call. `text` says its arguments: the model's, or those that whoever approved it put in their place."""
    started = ToolStarted(
        call_id=call.call.id,
        tool=planned.tool,
        function=planned.function,
        arguments=text,
        effect=planned.effect,
        key=key_of(session_id, call),
    )
    return Claim(started, arguments)


def claim_again(session_id: str, call: OpenCall, started: ToolStarted) -> Claim:
    """A further attempt of what was running when its worker died. What ran in the session that this one was forked from is a
    run of its own here, with a key of its own."""
    key = started.key if begun_here(session_id, started) else key_of(session_id, call)
    again = structs.replace(started, attempt=started.attempt + 1, key=key)
    return Claim(again, parse_arguments(started.arguments, cut=False))


def begun_here(session_id: str, started: ToolStarted) -> bool:
    """Or in the session that this one was forked from."""
    return started.key.startswith(f"{session_id}.")


def parse_arguments(text: str, *, cut: bool) -> JsonObject:
    """Nothing at all stands for no arguments, unless the answer was `cut` there. Raises BadRequest in words for a model."""
    if cut and not _whole(text):
        raise BadRequest(
            "not run: the answer reached its token limit before these arguments were complete. "
            "Make the call again, alone and with shorter arguments."
        )
    if not text.strip():
        return {}
    try:
        arguments = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise BadRequest(
            f"not run: the arguments are not valid JSON ({error}). Send one JSON object."
        ) from error
    if not isinstance(arguments, dict):
        raise BadRequest(f"not run: expected the arguments as one JSON object, got {_kind(arguments)}.")
    return arguments


def _whole(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return False


def _kind(value: object) -> str:
    match value:
        case list():
            return "an array"
        case str():
            return "a string"
        case None:
            return "null"
        case bool():
            return "a boolean"
        case _:
            return "a number"


def _unknown(name: str, functions: Mapping[str, PlannedFunction]) -> str:
    if not functions:
        return f"not run: there is no function {name[:80]!r}; this agent has no tools."
    near = difflib.get_close_matches(name[:80], functions, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(sorted(functions)[:NAMES_LISTED_MAX])
    return f"not run: there is no function {name[:80]!r}.{hint} Known: {listed}"


def refused(call: OpenCall, code: str, message: str) -> ToolFinished:
    return ToolFinished(call_id=call.call.id, content=(Text(message),), failed=True, code=code)
