"""Runtime: whose logs may be looked into. Sessions of every kind are read and exported here; forked, replayed and written to, only agents'.

Kept responses and conversations have an API of their own (server/apis/responses.py, conversations.py), whose rights are asked for besides.
"""

from collections.abc import Mapping
from typing import Final

from freehold.core import ids
from freehold.core.errors import BadRequest
from freehold.core.policy import Principal, authorize
from freehold.core.response_facts import SessionKind

_PREFIXES: Final[Mapping[str, SessionKind]] = {"resp": "response", "conv": "conversation"}
_INSTEAD: Final[Mapping[SessionKind, Mapping[str, str]]] = {
    "response": {
        "fork": "go on from it with previous_response_id, as often as you like and with any model",
        "send": "go on with it by previous_response_id, in POST /v1/responses",
        "cancel": "POST /v1/responses/{id}/cancel stops it",
        "delete": "DELETE /v1/responses/{id} deletes it",
    },
    "conversation": {
        "fork": "begin another one with its items, in POST /v1/conversations",
        "send": "name it as conversation in POST /v1/responses, or add items to it",
        "update": "POST /v1/conversations/{id} changes its metadata",
        "cancel": "nothing runs in it; a response that does is cancelled by its own id",
        "delete": "DELETE /v1/conversations/{id} deletes it",
    },
}


def kind_of(session_id: str) -> SessionKind:
    return _PREFIXES.get(session_id.partition("_")[0], "agent")


def check_agents(session_id: str, doing: str) -> None:
    """`doing` is a verb, for what only agents' sessions know. Raises BadRequest, which says what to do instead."""
    kind = kind_of(session_id)
    if kind == "agent":
        ids.check("sess", session_id, field="session_id")
        return
    instead = _INSTEAD[kind].get(doing, f"no agent acted in it, so there is nothing to {doing}")
    raise BadRequest(
        f"{session_id} is a kept {kind}: {instead.replace('{id}', session_id)}", field="session_id"
    )


def authorize_reading(principal: Principal, session_id: str) -> None:
    """Raises BadRequest for what is no id of a session, Forbidden."""
    kind = kind_of(session_id)
    if kind == "agent":
        ids.check("sess", session_id, field="session_id")
    authorize(principal, "session:Read", f"session/{session_id}")
    _authorize_kind(principal, kind, session_id)


def authorize_listing(principal: Principal, kind: SessionKind) -> None:
    authorize(principal, "session:Read", "session/*")
    _authorize_kind(principal, kind, "*")


def _authorize_kind(principal: Principal, kind: SessionKind, which: str) -> None:
    if kind != "agent":
        authorize(principal, f"{kind}:Get", f"{kind}/{which}")
