"""Server: the door of OpenAI's embeddings.

Not here: what the bodies mean (wires/openai_embeddings), how a call goes its way (gateway/embedding.py).
"""

from typing import Final

from msgspec import Struct

from freehold.core import ids
from freehold.core.errors import BadRequest, FreeholdError
from freehold.core.ports import EmbeddingWire
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import Gateway
from freehold.server.edge import at_the_edge
from freehold.server.exchange import Exchange, header_lines, printable
from freehold.server.front import route_line
from freehold.server.limit_lines import limit_lines, lines_after
from freehold.server.operations import Door, stopping, told_in

PATH: Final = b"/v1/embeddings"


class EmbeddingsDoor(Struct, frozen=True, kw_only=True):
    wire: EmbeddingWire
    gateway: Gateway
    door: Door

    def takes(self, raw_path: bytes) -> bool:
        return raw_path == PATH

    async def serve(self, exchange: Exchange) -> None:
        request_id = ids.new("req", self.door.clock)

        async def refuse(error: FreeholdError) -> None:
            await self._refuse(error, exchange, request_id)

        work = self._answer(exchange, request_id)
        await at_the_edge(work, refuse, exchange=exchange, door=self.door, request_id=request_id)

    async def _answer(self, exchange: Exchange, request_id: str) -> None:
        if exchange.method != b"POST":
            said = f"expected POST, got {exchange.method.decode('ascii', 'replace')}"
            await self._refuse(BadRequest(said), exchange, request_id, status=405)
            return
        if self.door.leaving.is_set():
            raise stopping()
        principal = self.door.authenticate(exchange.headers)
        envelope = Envelope(await exchange.read(self.door.body_bytes_max))
        made = await self.gateway.embed(principal, envelope, wire=self.wire, headers=exchange.headers)
        headers = {
            "content-type": "application/json",
            "x-request-id": request_id,
            "x-freehold-model": printable(f"{made.provider}/{made.model}"),
        }
        reason = b"" if made.choice.reason is None else route_line(made.choice.reason)
        limits = lines_after(self.wire.name, made.taken, self.door.clock)
        await exchange.respond(200, header_lines(headers.items()) + reason + limits, made.body)

    async def _refuse(
        self, error: FreeholdError, exchange: Exchange, request_id: str, *, status: int | None = None
    ) -> None:
        told = told_in(self.wire, error, request_id)
        more = [("allow", "POST")] if status == 405 else []
        lines = header_lines([*told.headers.items(), *more])
        lines += limit_lines(self.wire.name, error.standings, self.door.clock.now_ms())
        await exchange.respond(status or told.status, lines, told.body)
