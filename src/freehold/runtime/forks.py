"""Runtime: where a session is forked, and what the fork begins with. Pure; who may fork is sessions.py's matter, the sharing store's.

A fork goes on from where its origin stood after one of its events: with the same conversation, with the forker's rights, and by
its own log from there on. What was under way there is decided anew here (decide.py): a call that the origin had begun and that
has no result yet is run again, with a key of its own, where that is harmless, and is of unknown outcome where it is not.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from freehold.core.errors import BadRequest, Conflict
from freehold.core.messages import Media, Text
from freehold.core.session import (
    ModelAnswered,
    Recorded,
    ResultGiven,
    SessionEvent,
    SessionForked,
    SessionStatus,
    ToolFinished,
    ToolOutcomeUnknown,
    UserSpoke,
)
from freehold.core.session_state import replay

AT_CHARS_MAX: Final = 120
_RESULTS: Final = (ToolFinished, ToolOutcomeUnknown, ResultGiven)


class Edit(Struct, frozen=True):
    """Other words in place of a user's message, or (`result`) of a tool call's result."""

    content: tuple[Text | Media, ...]
    result: bool = False


class Fork(Struct, frozen=True):
    """The origin's events up to `origin_seq` are shared, `events` are the first of its own."""

    origin_seq: int
    events: tuple[SessionEvent, ...]
    status: SessionStatus


def place_of(session_id: str, at: str, events: Sequence[Recorded]) -> int:
    """The seq of an event that is named as any screen or API of ours names it: seq, cursor (`12.1`) or id. Raises BadRequest."""
    seq = _seq_of(session_id, at, events)
    if seq is None or not 0 < seq <= len(events):
        raise BadRequest(
            f"expected an event of {session_id}: a number from 1 to {len(events)}, a cursor like 12.0, or an event's id; got {at[:AT_CHARS_MAX]!r}",
            field="at",
        )
    return seq


def _seq_of(session_id: str, at: str, events: Sequence[Recorded]) -> int | None:
    match at.split("_"):
        case ["evt", base, "answer", seen] if _ours(session_id, base) and seen.isdecimal():
            answers = (
                one.seq
                for one in events
                if isinstance(one.event, ModelAnswered) and one.event.seen_seq == int(seen)
            )
            return next(answers, None)
        case ["evt", base, seq, _part] if _ours(session_id, base) and seq.isdecimal():
            return int(seq)
        case [cursor] if len(cursor) <= AT_CHARS_MAX:
            seq, _, part = cursor.partition(".")
            return int(seq) if seq.isdecimal() and (not part or part.isdecimal()) else None
        case _:
            return None


def _ours(session_id: str, base: str) -> bool:
    return session_id == f"sess_{base}"


def fork_of(
    session_id: str,
    events: Sequence[Recorded],
    *,
    at: int | None,
    by: str,
    model: str | None = None,
    edit: Edit | None = None,
) -> Fork:
    """`events` is the origin's whole log. Without `at`: at its end, or at the last event that `edit` can stand for.

    Raises BadRequest where `edit` doesn't fit the event, Conflict where there is none that it could.
    """
    own: tuple[SessionEvent, ...] = ()
    edited_seq = None
    if edit is None:
        shared_seq = len(events) if at is None else at
    else:
        edited = _edited(events, at, edit)
        shared_seq, edited_seq = edited.seq - 1, edited.seq
        own = (_instead(edited, edit, by),)
    forked = SessionForked(
        origin=session_id, origin_seq=shared_seq, model=model, by=by, edited_seq=edited_seq
    )
    state = replay(events[:shared_seq])
    goes_on = state.in_turn or bool(state.queued) or bool(own)
    return Fork(shared_seq, (forked, *own), "running" if goes_on else "idle")


def _edited(events: Sequence[Recorded], at: int | None, edit: Edit) -> Recorded:
    kinds = _RESULTS if edit.result else (UserSpoke,)
    what = "a tool call's result" if edit.result else "a user's message"
    if at is not None:
        if not isinstance(events[at - 1].event, kinds):
            raise BadRequest(
                f"expected the event of {what}, event {at} is {_kind(events[at - 1])}; those are: {_list(events, kinds)}",
                field="at",
            )
        return events[at - 1]
    found = next((one for one in reversed(events) if isinstance(one.event, kinds)), None)
    if found is None:
        raise Conflict(f"the session has no event of {what} that could be edited", field="edit")
    return found


def _instead(edited: Recorded, edit: Edit, by: str) -> SessionEvent:
    match edited.event:
        case (
            ToolFinished(call_id=call_id) | ToolOutcomeUnknown(call_id=call_id) | ResultGiven(call_id=call_id)
        ):
            content = tuple(edit.content)
            return ToolFinished(call_id=call_id, content=content)
        case _:
            return UserSpoke(content=edit.content, by=by)


LISTED_MAX: Final = 20


def _list(events: Sequence[Recorded], kinds: tuple[type, ...]) -> str:
    seqs = [str(one.seq) for one in events if isinstance(one.event, kinds)]
    return ", ".join(seqs[-LISTED_MAX:]) or "none"


def _kind(recorded: Recorded) -> str:
    return str(type(recorded.event).__struct_config__.tag)
