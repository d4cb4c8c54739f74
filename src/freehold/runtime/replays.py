"""Runtime: what an API does with recorded sessions: export them, replay them, ask another model in their place.

Whoever may read the session may do so (kinds.py); asking another model needs `model:Call` on that. Its calls are recorded with the session's id, and
stand in no log. Agents' instructions and tools are part of what is exported.
"""

from collections.abc import AsyncIterator
from typing import Final

from freehold.core.errors import BadRequest
from freehold.core.messages import ModelRequest
from freehold.core.policy import Principal
from freehold.core.ports import Clock
from freehold.core.session import ModelAnswered, ModelFailed
from freehold.core.session_log import SessionLog
from freehold.core.session_state import SessionState
from freehold.runtime.equipment import Equipment
from freehold.runtime.inputs import MODEL_CHARS_MAX, check_length
from freehold.runtime.kinds import authorize_reading, check_agents
from freehold.runtime.live import Live
from freehold.runtime.model_step import Asked, Gateway, ModelStep, RetryPolicy
from freehold.runtime.reasking import Ask, Reasking
from freehold.runtime.recording import Recording, lines, recording
from freehold.runtime.replay import Replayed, replayed

REPLAY_EVENTS_MAX: Final = 100_000
"""A whole log is held in memory: of longer ones, replay an export with the command line."""


class Replays:
    def __init__(self, log: SessionLog, gateway: Gateway, clock: Clock) -> None:
        self._log = log
        self._gateway = gateway
        self._clock = clock

    async def export(self, principal: Principal, session_id: str) -> AsyncIterator[bytes]:
        """The lines of a recording, as they are read; of a session of any kind."""
        authorize_reading(principal, session_id)
        row = await self._log.get(principal.tenant, session_id)
        return lines(self._log, row.tenant, session_id)

    async def replay(self, principal: Principal, session_id: str) -> Replayed:
        found = await self._recording(principal, session_id)
        return replayed(session_id, found.events, found.equipments)

    async def reask(
        self, principal: Principal, session_id: str, *, model: str, past_divergence: bool
    ) -> Reasking:
        """Nothing is asked before its steps are iterated over."""
        check_length(model, MODEL_CHARS_MAX, field="model")
        found = await self._recording(principal, session_id)
        step = self._asks(principal, session_id)
        return Reasking(
            found.events, found.equipments, model=model, ask=step, past_divergence=past_divergence
        )

    def _asks(self, principal: Principal, session_id: str) -> Ask:
        unheard = Live()

        async def ask(
            request: ModelRequest, equipment: Equipment, state: SessionState
        ) -> ModelAnswered | ModelFailed:
            agent = equipment.agent
            asked = Asked(principal=principal, session_id=session_id, agent=agent.name, rules=agent.rules)
            call = ModelStep(
                self._gateway, unheard, self._clock, retries=RetryPolicy(), asked=asked, state=state
            )
            return await call.run(request)

        return ask

    async def _recording(self, principal: Principal, session_id: str) -> Recording:
        check_agents(session_id, "replay")
        authorize_reading(principal, session_id)
        row = await self._log.get(principal.tenant, session_id)
        if row.version > REPLAY_EVENTS_MAX:
            raise BadRequest(
                f"a session of {row.version} events is too long to be replayed by the server ({REPLAY_EVENTS_MAX} at most): "
                "export it, and replay the file with the command line"
            )
        return await recording(self._log, row.tenant, session_id)
