"""Server: the door of Google's generateContent, for the vendor's SDKs, answered by any model.

Model and method stand in the path: `/v1beta/models/{model}:generateContent`, and so under `/v1/`. The model may be any name that the
gateway knows, with its slash. The key comes as `x-goog-api-key` (or Bearer), never in the address, which gets into logs. Not here: what
the bodies mean (wires/google_generate), how a call goes its way (front.py).
"""

from typing import Final
from urllib.parse import parse_qs, unquote_to_bytes

from msgspec import Struct

from freehold.core.errors import BadRequest, NotFound
from freehold.core.policy import Principal
from freehold.core.ports import Wire
from freehold.gateway.passing import Envelope
from freehold.server.exchange import Exchange
from freehold.server.front import Front
from freehold.wires.google_generate import ArrayForm

PREFIXES: Final = (b"/v1beta/models/", b"/v1/models/")
METHODS: Final = {"generateContent": False, "streamGenerateContent": True}
_ENDINGS: Final = tuple(f":{method}".encode() for method in METHODS)
_OWN: Final = b"/v1beta/"
"""All of it is the vendor's; under `/v1/` there are others' addresses too."""


class Address(Struct, frozen=True):
    model: str
    stream: bool


class GoogleDoor(Struct, frozen=True, kw_only=True):
    wire: Wire
    front: Front

    def takes(self, raw_path: bytes) -> bool:
        if raw_path.startswith(_OWN):
            return True
        return raw_path.startswith(PREFIXES) and unquote_to_bytes(raw_path).endswith(_ENDINGS)

    async def serve(self, exchange: Exchange) -> None:
        async def ask() -> tuple[Principal, Envelope]:
            address = address_of(exchange.target)
            door = self.front.door
            principal = door.authenticate(exchange.headers)
            body = await exchange.read(door.body_bytes_max)
            return principal, Envelope(body, model=address.model, stream=address.stream)

        form = None if asks_for_events(exchange.target) else ArrayForm()
        await self.front.answer(self.wire, ask, exchange, form=form)


def address_of(target: bytes) -> Address:
    """Raises NotFound for what is not served, BadRequest for a name that is no UTF-8."""
    path, _, _ = target.partition(b"?")
    prefix = next((one for one in PREFIXES if path.startswith(one)), None)
    if prefix is None:
        raise _unknown(path)
    try:
        rest = unquote_to_bytes(path.removeprefix(prefix)).decode()
    except UnicodeDecodeError as error:
        raise BadRequest("expected UTF-8, percent-encoded", field="model") from error
    model, _, method = rest.rpartition(":")
    if not model or method not in METHODS:
        raise _unknown(path)
    return Address(model, METHODS[method])


def asks_for_events(target: bytes) -> bool:
    _, _, query = target.partition(b"?")
    return parse_qs(query.decode("latin-1")).get("alt") == ["sse"]


def _unknown(path: bytes) -> NotFound:
    served = ", ".join(f"/v1beta/models/{{model}}:{method}" for method in METHODS)
    shown = path[:200].decode("ascii", "replace")
    return NotFound(f"{shown} is not served; of Google's API there are: {served}")
