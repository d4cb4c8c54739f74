"""Runtime: what a turn has: its agent as declared, the rights it acts with, the tools it may use, whom it asks. Found out anew for each turn.

Not here: what of it the log keeps (equipment.py).
"""

from contextlib import AsyncExitStack

from msgspec import Struct

from freehold.core.context import Reach
from freehold.core.environments import hosts_of
from freehold.core.errors import FreeholdError, Internal
from freehold.core.messages import ModelRequest
from freehold.core.policy import Policy, Principal, Statement
from freehold.core.resources import Agent
from freehold.core.session import SessionStarted
from freehold.core.session_log import Lease
from freehold.core.session_state import SessionState
from freehold.gateway.residency import with_labels
from freehold.runtime.declared import DeclaredTool, custom_tool, set_up
from freehold.runtime.equipment import Equipped
from freehold.runtime.means import Means
from freehold.runtime.model_step import Asked
from freehold.runtime.offload import SessionResults
from freehold.runtime.subagents import inherited
from freehold.runtime.tools import Toolbox


class Acting(Struct, frozen=True):
    """Who acts in a turn, with which rights and by which tools. `hosts` are those that tools may reach; None: any."""

    agent: Agent
    tools: list[DeclaredTool]
    principal: Principal
    hosts: tuple[str, ...] | None


class Outfit(Struct, frozen=True):
    """What is found out once a turn. `results` keeps what the model is not shown whole. `asked` is for whom the model is asked,
    `head` what it is asked with, while no first result is put aside."""

    acting: Acting
    equipped: Equipped
    toolbox: Toolbox
    asked: Asked
    head: ModelRequest
    results: SessionResults


async def acting(means: Means, lease: Lease, state: SessionState) -> Acting:
    """The agent acts with its session's creator's rights of now, and only through its tools.

    Raises a retryable error only when the database is away: that is not the turn's fault.
    """
    started = _started(state)
    tenant, declarations, setup = lease.tenant, means.declarations, started.setup
    agent = set_up(await declarations.agent(tenant, started.agent, started.agent_version), setup)
    tools = [await declarations.tool(tenant, name) for name in agent.tools]
    if (own := custom_tool(agent)) is not None:
        tools.append(own)
    principal = await means.principals.current(tenant, started.by)
    principal = with_labels(principal, (*started.labels, *agent.labels))
    for name, policy in await inherited(means.log, declarations, tenant, started):
        principal = principal.narrowed("agent", name, policy)
    if agent.policy is not None:
        principal = principal.narrowed("agent", agent.name, agent.policy)
    principal = principal.narrowed("agent", agent.name, _through_tools(agent))
    hosts = None
    if setup is not None and setup.environment is not None:
        hosts = hosts_of(await declarations.environment(tenant, setup.environment, setup.environment_version))
    return Acting(agent, tools, principal, hosts)


async def fitted(
    means: Means, lease: Lease, state: SessionState, who: Acting, borrowed: AsyncExitStack
) -> Outfit:
    """What it borrows is given back by `borrowed`. Raises FreeholdError where it cannot be had."""
    agent, started = who.agent, _started(state)
    toolbox = await borrowed.enter_async_context(means.tools.borrow(lease.tenant, agent.name, who.tools))
    try:
        reach = await means.gateway.reach(who.principal, started.model or agent.model, rules=agent.rules)
    except FreeholdError:  # A model that is not there says so when it is asked.
        reach = Reach()
    equipped = means.equipments.made(agent, toolbox, reach)
    family = [started.parent.session_id] if started.parent else []
    ids = [lease.session_id, *reversed(state.origins), *family]
    return Outfit(
        who,
        equipped,
        toolbox,
        Asked(principal=who.principal, session_id=lease.session_id, agent=agent.name, rules=agent.rules),
        equipped.equipment.head(state),
        means.results.of(lease.tenant, ids, bytes_max=agent.context.tool_result_bytes_max),
    )


def _started(state: SessionState) -> SessionStarted:
    if state.started is None:
        raise Internal("the session's log does not begin with its start")
    return state.started


def _through_tools(agent: Agent) -> Policy:
    tools = tuple(f"tool/{name}/*" for name in agent.tools)
    model = Statement("Allow", "model:Call", "*")
    return Policy((model, Statement("Allow", "tool:Run", tools)) if tools else (model,))
