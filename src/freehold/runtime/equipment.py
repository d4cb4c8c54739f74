"""Runtime: what a turn's model was equipped with: the agent as declared, its functions as they were found. Pure, but for keeping it.

Kept once as a block, and named by its digest in every answer, it makes a log whole: what was decided, and what was asked, can be
told again from the two alone (replay.py), whatever has been declared since.
"""

import hashlib
from collections import OrderedDict
from typing import Final

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
            cost_max_pico=money_pico(limits.cost_max_usd, field="cost_max_usd"),
            session_cost_max_pico=money_pico(limits.session_cost_max_usd, field="session_cost_max_usd"),
            context=planned(self.agent, self.reach, self._asking(self.agent.model, ())),
            limited=frozenset(one.tool for one in self.functions.values() if one.limited),
        )

    def request(self, state: SessionState) -> ModelRequest:
        request = self._asking(self.model_of(state), shown(state, self.agent.context))
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


class Equipments:
    """Keeps equipments, and remembers which ones it has kept: one of a process is kept once, not once a turn."""

    def __init__(self, log: SessionLog) -> None:
        self._log = log
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def keep(self, tenant: str, equipment: Equipment) -> str:
        """Its digest; durable on return."""
        body = equipment.encoded()
        digest = hashlib.sha256(body).hexdigest()
        if (tenant, digest) not in self._known:
            await self._log.keep_block(tenant, digest, body)
            self._known[tenant, digest] = None
            if len(self._known) > REMEMBERED_MAX:
                self._known.popitem(last=False)
        return digest
