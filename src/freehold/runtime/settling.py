"""Runtime: what people and clients say of a session's open tool calls: approvals, and results of tools that they ran themselves.

Here is found what they speak of, whether they may, and whether it still is what they saw. What it leads to is waiting.py's
matter: a quorum may be missing, the arguments may be changed again.
"""

from collections.abc import Sequence

import msgspec

from freehold.core.errors import BadRequest, Conflict, Forbidden, NotFound
from freehold.core.messages import JsonObject, Media, Text
from freehold.core.policy import Principal
from freehold.core.session import (
    ApprovalDecided,
    AwaitsApproval,
    AwaitsClient,
    CallAwaited,
    ResultGiven,
    approval_binding,
)
from freehold.core.session_log import SessionLog, SessionRow
from freehold.runtime.inputs import REASON_CHARS_MAX, check_length, check_result
from freehold.runtime.offload import SessionResults
from freehold.runtime.resuming import resumed


async def decision(
    log: SessionLog,
    row: SessionRow,
    principal: Principal,
    *,
    call_id: str,
    allow: bool,
    reason: str = "",
    arguments: JsonObject | None = None,
    binding: str | None = None,
) -> ApprovalDecided:
    """`binding` is what the person saw, where their client says so; `arguments` are to be used in place of the model's.

    Raises NotFound where the call awaits no approval, Conflict where it is not what was seen, Forbidden where somebody else
    was asked.
    """
    check_length(reason, REASON_CHARS_MAX, field="reason")
    awaits = (await _awaited(log, row, call_id)).awaits
    if not isinstance(awaits, AwaitsApproval):
        raise NotFound(
            f"tool call {call_id[:80]!r} awaits no approval, but its {awaits.__struct_config__.tag}"
        )
    if awaits.approvers and not _names(principal) & set(awaits.approvers):
        raise Forbidden(
            f"{principal.id} is not one of those who were asked to approve {awaits.tool}/{awaits.function}"
        )
    if binding is not None and binding != awaits.binding:
        raise Conflict(
            f"what waits for approval is not what you saw: {awaits.tool}/{awaits.function} has other arguments, or its declaration "
            f"changed; look again (its binding is {awaits.binding})",
            field="binding",
        )
    if arguments is not None and not allow:
        raise BadRequest("expected arguments only where the call is allowed", field="input")
    edited = None if arguments is None else msgspec.json.encode(arguments).decode()
    return ApprovalDecided(
        call_id=call_id,
        binding=awaits.binding
        if edited is None
        else approval_binding(awaits.tool, awaits.version, awaits.function, edited),
        allow=allow,
        by=principal.id,
        person=principal.account.user or "",
        reason=reason,
        arguments=edited,
    )


def _names(principal: Principal) -> set[str]:
    """By which an approval's rule may mean them."""
    account = principal.account
    named = (account.user and f"user/{account.user}", account.team and f"team/{account.team}")
    return {principal.id, *(name for name in named if name)}


async def client_result(
    log: SessionLog,
    row: SessionRow,
    principal: Principal,
    *,
    call_id: str,
    content: Sequence[Text | Media],
    results: SessionResults,
    failed: bool = False,
) -> ResultGiven:
    """What is too large to be shown whole goes to `results`. Raises NotFound where no client is waited for under that id."""
    check_result(content)
    awaits = (await _awaited(log, row, call_id)).awaits
    if not isinstance(awaits, AwaitsClient):
        raise NotFound(
            f"tool call {call_id[:80]!r} is not the client's to answer: it awaits its {awaits.__struct_config__.tag}"
        )
    fitted = await results.fitted(content)
    return ResultGiven(
        call_id=call_id,
        source="client",
        content=fitted.content,
        failed=failed,
        by=principal.id,
        kept=fitted.kept,
    )


async def _awaited(log: SessionLog, row: SessionRow, call_id: str) -> CallAwaited:
    """Mostly the row knows. While the session still runs (a second call of the same answer), only the log does."""
    if row.waits is not None:
        for one in row.waits.calls:
            if one.call_id == call_id:
                return one
    call = (await resumed(log, row.id)).state.open_calls.get(call_id)
    if call is None or call.awaited is None:
        raise NotFound(
            f"session {row.id} has no tool call {call_id[:80]!r} that waits for somebody: it was settled, or never was"
        )
    return call.awaited
