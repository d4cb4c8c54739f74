"""Runtime: whose logs may be looked into. Sessions of every kind are read here; written to, only agents'.

Kept responses and conversations have an API of their own (server/apis/responses.py, conversations.py), whose rights are asked for besides.
"""

from collections.abc import Mapping
from typing import Final

from freehold.core import ids
from freehold.core.policy import Principal, authorize
from freehold.core.response_facts import SessionKind

_PREFIXES: Final[Mapping[str, SessionKind]] = {"resp": "response", "conv": "conversation"}


def authorize_reading(principal: Principal, session_id: str) -> None:
    """Raises BadRequest for what is no id of a session, Forbidden."""
    kind = _PREFIXES.get(session_id.partition("_")[0], "agent")
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
