"""Sessions as Claude Managed Agents' API shows them. What is ours stands under `freehold`. Source: the `anthropic` SDK's types, beta."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from msgspec import Struct

from freehold.core.environments import DEFAULT
from freehold.core.errors import BadRequest, Unsupported
from freehold.core.messages import Usage
from freehold.core.pricing import PICO
from freehold.core.session import SessionStatus, asks
from freehold.core.session_log import SessionRow, StatusWanted
from freehold.runtime.declared import Declarations, set_up
from freehold.server.apis._agent_shapes import view
from freehold.server.apis._events import money

CENTS_DIGITS_MAX: Final = 15
PICO_PER_CENT: Final = PICO // 100
STATUS_OUT: Final[Mapping[SessionStatus, str]] = {
    "idle": "idle",
    "running": "running",
    "paused": "idle",
    "cancelled": "terminated",
}
STATUS_IN: Final[Mapping[str, Sequence[StatusWanted]]] = {
    "idle": ("idle", "asks", "paused"),
    "running": ("running", "goes_on"),
    "rescheduling": (),
    "terminated": ("cancelled",),
    "working": ("running",),
    "waiting": ("waiting",),
    "paused": ("paused",),
}
"""Nothing is ever `rescheduling`: what another worker carries on is `running`. `working`, `waiting` and `paused` are ours."""

Status = Literal["idle", "running", "rescheduling", "terminated", "working", "waiting", "paused"]


class Amount(Struct, frozen=True, forbid_unknown_fields=True):
    """`amount` in cents, as text."""

    amount: str
    currency: str = "USD"


class BudgetLimit(Struct, frozen=True, forbid_unknown_fields=True):
    max_list_cost: Amount
    type: Literal["limit"] = "limit"


def cost_max_usd(budget: BudgetLimit | None) -> str | None:
    """As decimal text in dollars. Raises BadRequest, Unsupported."""
    if budget is None:
        return None
    given, path = budget.max_list_cost, "budget.max_list_cost"
    if given.currency != "USD":
        raise Unsupported(f"expected USD, got {given.currency[:20]!r}", field=f"{path}.currency")
    if (
        not given.amount.isdecimal()
        or not 0 < int(given.amount[: CENTS_DIGITS_MAX + 1]) < 10**CENTS_DIGITS_MAX
    ):
        raise BadRequest(
            f'expected cents as text like "2500" for $25, got {given.amount[:40]!r}', field=f"{path}.amount"
        )
    return str(Decimal(given.amount) / 100)


def status_of(row: SessionRow) -> str:
    """In this dialect `idle` is what waits for its client. What goes on by itself (at a time, on an event, when a subagent is done) is
    `running`; `freehold.status` says more."""
    if row.status == "waiting":
        return "idle" if asks(row.waits) else "running"
    return STATUS_OUT[row.status]


def wanted_statuses(given: Sequence[Status]) -> tuple[StatusWanted, ...] | None:
    """None: none that any session could have."""
    found = tuple(one for status in given for one in STATUS_IN[status])
    return None if given and not found else found


class SessionShown(Struct, frozen=True, kw_only=True):
    id: str
    type: str = "session"
    agent: dict[str, Any]
    status: str
    title: str | None
    metadata: dict[str, str]
    environment_id: str = "default"
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None
    usage: dict[str, Any]
    budget: dict[str, Any] | None = None
    deployment_id: str | None = None
    stats: dict[str, Any]
    resources: tuple[Any, ...] = ()
    vault_ids: tuple[str, ...] = ()
    outcome_evaluations: tuple[Any, ...] = ()
    freehold: dict[str, Any]


async def session_shown(row: SessionRow, declarations: Declarations) -> SessionShown:
    """`declarations` remembers versions of agents, which never change."""
    setup = row.setup
    return SessionShown(
        id=row.id,
        agent=await _agent_shown(row, declarations),
        status=status_of(row),
        title=row.title or None,
        metadata=row.metadata,
        environment_id=(setup and setup.environment) or DEFAULT,
        created_at=row.created_at,
        updated_at=row.updated_at,
        archived_at=row.archived_at,
        deployment_id=row.deployment,
        budget=budget_shown(setup.cost_max_usd) if setup and setup.cost_max_usd else None,
        usage=usage_shown(row.usage, row.cost_pico),
        stats={"duration_seconds": duration_s(row)},
        freehold={
            "kind": row.kind,
            "model": row.model,
            "version": row.version,
            "cost": money(row.cost_pico),
            "created_by": row.created_by,
            "status": row.status,
            "waits": row.waits,
            "when_busy": row.when_busy,
            "parent_id": row.parent_id,
            "origin": row.origin_id and {"session_id": row.origin_id, "seq": row.origin_seq},
        },
    )


async def _agent_shown(row: SessionRow, declarations: Declarations) -> dict[str, Any]:
    """Empty where no agent acts."""
    if row.kind != "agent":
        return {"type": "agent", "id": "", "name": "", "version": 0}
    agent = set_up(await declarations.agent(row.tenant, row.agent, row.agent_version), row.setup)
    return view(agent, row.agent_version, model=row.model)


def duration_s(row: SessionRow) -> float:
    return (row.updated_at - row.created_at).total_seconds()


def usage_shown(usage: Usage, cost_pico: int) -> dict[str, Any]:
    """`list_cost` is rounded half up to a cent; `freehold.cost` is exact."""
    cents = (cost_pico + PICO_PER_CENT // 2) // PICO_PER_CENT
    return {
        "input_tokens": usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "list_cost": {"amount": str(cents), "currency": "USD"},
    }


def budget_shown(usd: str) -> dict[str, Any]:
    cents = str(int(Decimal(usd) * 100))
    return {"type": "limit", "max_list_cost": {"amount": cents, "currency": "USD"}}
