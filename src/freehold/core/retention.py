"""How long sessions are kept, by class: the policies, as declared. Pure. What carries them out: retaining.py.

A session is kept as long as the policy says that keeps it longest, of all that match it; where none does, as the installation's
configuration says (sessions.retention_days). So a policy can only lengthen what another one says: to keep one class for less time,
leave it out of the other.
"""

from typing import Final, Literal

from msgspec import Struct

from freehold.core.errors import BadRequest
from freehold.core.response_facts import SessionKind

DAYS_MAX: Final = 36_500.0


class Retention(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="retention",
    tag_field="kind",
):
    """Matches sessions of one of `agents` (none: of any) that have all of `metadata`; as far as deleting goes, only those at rest, and of one
    of `statuses` (none: any). Unless `kinds` says otherwise, no kept responses and conversations, which have neither agent nor metadata.

    `days`: so long after it was last written to, it is deleted. `hold`: it is not, whatever else is said. `waiting_days`: one that waits or
    is paused is ended (as by `kill`) when nobody has written to it for so long. `evidence_days`: what people were asked and decided in
    it is kept so long beyond its deletion, by whomever it is deleted. What is left out, it says nothing about.
    """

    name: str
    description: str = ""
    kinds: tuple[SessionKind, ...] = ("agent",)
    agents: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    statuses: tuple[Literal["idle", "cancelled", "archived"], ...] = ()
    days: float | None = None
    hold: bool = False
    waiting_days: float | None = None
    evidence_days: float | None = None


def check(policy: Retention) -> None:
    """Raises BadRequest with the path of what is wrong."""
    for field in ("days", "waiting_days", "evidence_days"):
        value = getattr(policy, field)
        if value is not None and not 0 <= value <= DAYS_MAX:
            raise BadRequest(f"expected 0 to {DAYS_MAX:.0f} days, got {value}", field=field)
    if not policy.kinds:
        raise BadRequest("expected at least one kind of session", field="kinds")
    if policy.kinds != ("agent",) and (policy.agents or policy.metadata):
        raise BadRequest("only agents' sessions have agents and metadata: leave these out", field="kinds")
    if policy.hold and policy.days is not None:
        raise BadRequest("expected either hold or days, not both", field="days")
    if (
        not policy.hold
        and policy.days is None
        and policy.waiting_days is None
        and policy.evidence_days is None
    ):
        raise BadRequest("says nothing: expected days, hold, waiting_days or evidence_days")
