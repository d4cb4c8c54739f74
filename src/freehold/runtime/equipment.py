"""Runtime: what a turn's model was equipped with: the agent as declared, its functions as they were found. Pure, but for keeping it.

Kept once as a block, and named by its digest in every answer, it makes a log whole: what was decided, and what was asked, can be
told again from the two alone (replay.py), whatever has been declared since.
"""

import hashlib
from collections import OrderedDict
from typing import Final, Protocol

import msgspec
from msgspec import Struct, structs

from freehold.core.context import Reach
from freehold.core.messages import Message, ModelRequest, ReasoningSetting, Text, ToolSpec
from freehold.core.resources import Agent
from freehold.core.session_log import SessionLog
from freehold.core.session_state import SessionState
from freehold.runtime.calls import PlannedFunction
from freehold.runtime.context import planned, shown
from freehold.runtime.decide import Plan, money_pico
from freehold.runtime.offload import PLANNED, RESULT_READ, SPEC

REMEMBERED_MAX: Final = 4096
MADE_MAX: Final = 256

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


class Equipment(Struct, frozen=True):
    """`functions` are by the name the model uses, `specs` as it is told of them. `reach` is the model's."""

    agent: Agent
    specs: tuple[ToolSpec, ...] = ()
    functions: dict[str, PlannedFunction] = {}
    reach: Reach = Reach()

    def encoded(self) -> bytes:
        return _ENCODER.encode(self)

    def plan(self, session_id: str) -> Plan:
        """Raises BadRequest where the agent's limits say no amount of money."""
        limits = self.agent.limits
        return Plan(
            session_id,
            limits,
            {RESULT_READ: PLANNED, **self.functions} if self.functions else {},
            cost_max_pico=money_pico(limits.cost_max_usd, field="limits.cost_max_usd"),
            session_cost_max_pico=money_pico(
                limits.session_cost_max_usd, field="limits.session_cost_max_usd"
            ),
            context=planned(self.agent, self.reach, self._asking(self.agent.model, ())),
            limited=frozenset(one.tool for one in self.functions.values() if one.limited),
        )

    def request(self, state: SessionState, head: ModelRequest | None = None) -> ModelRequest:
        """`head` is all of it but the messages, where the caller has it."""
        return structs.replace(head or self.head(state), messages=shown(state, self.agent.context))

    def head(self, state: SessionState) -> ModelRequest:
        """Of the next request, what stays while no first result is put aside."""
        request = self._asking(self.model_of(state), ())
        return structs.replace(request, tools=(*self.specs, SPEC)) if state.results_kept else request

    def model_of(self, state: SessionState) -> str:
        """The session's own goes first."""
        return (state.started and state.started.model) or self.agent.model

    def _asking(self, model: str, messages: tuple[Message, ...]) -> ModelRequest:
        agent = self.agent
        return ModelRequest(
            model=model,
            messages=messages,
            instructions=(Text(agent.instructions),) if agent.instructions else (),
            tools=self.specs,
            reasoning=ReasoningSetting(effort=agent.reasoning_effort) if agent.reasoning_effort else None,
            tokens_max=agent.tokens_max,
            temperature=agent.temperature,
            stream=True,
        )


def decoded(body: bytes) -> Equipment:
    return msgspec.json.decode(body, type=Equipment)


class Offered(Protocol):
    """What tools offer a model: specs as it is told of them, functions as its words mean them."""

    @property
    def specs(self) -> tuple[ToolSpec, ...]: ...

    @property
    def functions(self) -> dict[str, PlannedFunction]: ...


class Equipped(Struct, frozen=True):
    """An equipment with what follows from it. `plan` is no session's yet."""

    equipment: Equipment
    body: bytes
    digest: str
    plan: Plan


class Equipments:
    """Keeps equipments, and remembers which ones it has kept: one of a process is kept once, not once a turn; and those that it made
    lately, whose turns differ in nothing."""

    def __init__(self, log: SessionLog) -> None:
        self._log = log
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._made: OrderedDict[tuple[int, int], tuple[Agent, Offered, Equipped]] = OrderedDict()

    def made(self, agent: Agent, toolbox: "Offered", reach: Reach) -> Equipped:
        """Raises BadRequest where the agent's limits say no amount of money."""
        place = (id(agent), id(toolbox))
        known = self._made.get(place)
        if known is not None and known[2].equipment.reach == reach:
            self._made.move_to_end(place)
            return known[2]
        equipment = Equipment(agent, toolbox.specs, toolbox.functions, reach)
        body = equipment.encoded()
        equipped = Equipped(equipment, body, hashlib.sha256(body).hexdigest(), equipment.plan(""))
        # Both are held on to, so that nobody else can have their ids.
        self._made[place] = (agent, toolbox, equipped)
        if len(self._made) > MADE_MAX:
            self._made.popitem(last=False)
        return equipped

    async def keep(self, tenant: str, equipped: Equipped) -> None:
        """Durable on return."""
        if (tenant, equipped.digest) not in self._known:
            await self._log.keep_block(tenant, equipped.digest, equipped.body)
            self._known[tenant, equipped.digest] = None
            if len(self._known) > REMEMBERED_MAX:
                self._known.popitem(last=False)
