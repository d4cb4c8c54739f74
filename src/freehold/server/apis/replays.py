"""Sessions' recordings: export one, replay it offline, or with another model in its place. /v1/sessions/{id}/export and /replay."""

from collections.abc import AsyncIterator
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from starlette.responses import StreamingResponse

from freehold.core.errors import BadRequest
from freehold.runtime.reasking import Reasking
from freehold.runtime.replay import Replayed
from freehold.runtime.replays import Replays
from freehold.server.apis._events import money
from freehold.server.operations import Call, Operation

JSONL: Final = "application/x-jsonl"
_ENCODER: Final = msgspec.json.Encoder()
_COSTS: Final = ("cost_pico", "recorded_cost_pico", "asked_cost_pico")


class Replay(Struct, frozen=True, forbid_unknown_fields=True):
    """Without `model`, offline: nothing is asked and nothing is run. `past_divergence`: go on where the other model does otherwise."""

    model: str | None = None
    past_divergence: bool = False


class ReplayShown(Struct, frozen=True):
    """`same`: every decision and every request came out as recorded; `divergence` is the first that did not."""

    same: bool
    replayed: Replayed
    type: Literal["replay"] = "replay"


class ReplayApi:
    def __init__(self, replays: Replays) -> None:
        self._replays = replays

    async def export(self, call: Call) -> StreamingResponse:
        found = await self._replays.export(call.principal, call.path["session_id"])
        return StreamingResponse(found, media_type=JSONL, headers={"cache-control": "no-store"})

    async def replay(self, call: Call) -> ReplayShown | StreamingResponse:
        """With a model: lines of JSON as it answers, a `step` each and an `end`."""
        body: Replay = call.body
        session_id = call.path["session_id"]
        if body.model is None:
            if body.past_divergence:
                raise BadRequest(
                    "expected a model with it: offline there is nothing to go past", field="model"
                )
            found = await self._replays.replay(call.principal, session_id)
            return ReplayShown(found.divergence is None, found)
        reasking = await self._replays.reask(
            call.principal, session_id, model=body.model, past_divergence=body.past_divergence
        )
        return StreamingResponse(
            _told(reasking),
            media_type=JSONL,
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )


async def _told(reasking: Reasking) -> AsyncIterator[bytes]:
    async for step in reasking.steps():
        yield _line(step)
    yield _line(reasking.end)


def _line(value: Struct) -> bytes:
    return _ENCODER.encode(_with_money(msgspec.to_builtins(value))) + b"\n"


def _with_money(value: dict[str, Any]) -> dict[str, Any]:
    """Costs as this API tells them everywhere."""
    told: dict[str, Any] = {}
    for name, one in value.items():
        if name in _COSTS:
            told[name.removesuffix("_pico")] = money(one)
        else:
            told[name] = _with_money(one) if isinstance(one, dict) else one
    return told


def operations(replays: Replays) -> list[Operation]:
    api = ReplayApi(replays)
    one = "/v1/sessions/{session_id}"
    return [
        Operation(method="GET", path=f"{one}/export", id="exportSession", tag="sessions",
                  summary="The session as recorded, whole, as lines of JSON: what a replay needs.", handler=api.export,
                  media_type=JSONL),
        Operation(method="POST", path=f"{one}/replay", id="replaySession", tag="sessions",
                  summary="Decide it all again, offline; or ask another model at every step, with the recorded results.",
                  handler=api.replay, body=Replay, answer=ReplayShown),
    ]  # fmt: skip
