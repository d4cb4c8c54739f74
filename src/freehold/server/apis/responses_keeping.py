"""The Responses API with a memory, for any model: what a request builds on is put before its input, and its answer is kept.

The memory is ours also where a provider has one: it is asked to store nothing and to hand out its reasoning sealed, so that the next
turn can go to another vendor. A request that neither refers to anything nor is to be stored is left as it came. What is labelled is kept
where this installation meets the labels, and whatever goes on with it has them too (gateway/residency.py). Not here: what runs in the background (responses_background.py), reading and deleting (responses.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct, structs

from freehold.core import ids
from freehold.core.errors import BadRequest, Conflict, FreeholdError, NotFound
from freehold.core.policy import Principal, allowed, authorize
from freehold.core.ports import Clock
from freehold.core.responses import ConversationItem, Conversations, KeptResponse, ResponseEvents, Responses
from freehold.core.validation import decode
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import ACTION, Gateway
from freehold.gateway.residency import hold_here, hold_together, with_labels, within_reach
from freehold.server.apis import _response_items as items
from freehold.server.apis._response_answers import Ended, MarkedStream, Marks, event_of, shown
from freehold.server.apis._response_stream import followed
from freehold.server.exchange import Exchange, header_lines

WIRE: Final = "openai_responses"
GET: Final = "response:Get"
CONVERSE: Final = "conversation:Update"
SEALED: Final = "reasoning.encrypted_content"

_FALSE: Final = Raw(b"false")
_NOTHING: Final = (b"null", b"false")
DONE_HERE: Final = ("previous_response_id", "conversation", "background", "store")
_encode: Final = msgspec.json.Encoder().encode


class _ConversationRef(Struct, frozen=True):
    id: str


_TEXT: Final = msgspec.json.Decoder(str | None)
_TRUTH: Final = msgspec.json.Decoder(bool | None)
_TEXTS: Final = msgspec.json.Decoder(list[str] | None)
_CONVERSATION: Final = msgspec.json.Decoder(str | _ConversationRef | None)


class Asked(Struct, frozen=True):
    """What a request says of keeping. `input` is its own, an array; `referred`: with items that the client left out, `labels` are theirs."""

    stored: bool
    background: bool
    previous_id: str | None
    conversation_id: str | None
    input: bytes
    referred: bool = False
    labels: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether anything of it is written down."""
        return self.stored or self.conversation_id is not None


class Before(Struct, frozen=True):
    """Arrays of what was said before, oldest first, and the labels that it has."""

    said: Sequence[bytes] = ()
    labels: tuple[str, ...] = ()


def asked_in(fields: Mapping[str, Raw]) -> Asked | None:
    """None where nothing is to be kept and nothing was. Raises BadRequest with the field."""
    if bytes(fields.get("store", b"")) == b"false" and all(
        bytes(fields.get(name, b"null")) in _NOTHING for name in DONE_HERE[:3]
    ):
        return None
    conversation = _read(fields, "conversation", _CONVERSATION)
    stored = _read(fields, "store", _TRUTH)
    asked = Asked(
        stored is not False,
        bool(_read(fields, "background", _TRUTH)),
        _read(fields, "previous_response_id", _TEXT) or None,
        conversation.id if isinstance(conversation, _ConversationRef) else conversation or None,
        items.array_of(fields.get("input")),
    )
    if asked.previous_id is not None and asked.conversation_id is not None:
        raise BadRequest(
            "Mutually exclusive parameters. Ensure you are only providing one of: 'previous_response_id' or 'conversation'.",
            field="previous_response_id",
        )
    if asked.background and not asked.stored:
        raise BadRequest("what runs in the background has to be stored: say store: true", field="background")
    return asked


def _read(fields: Mapping[str, Raw], name: str, decoder: "msgspec.json.Decoder[Any]") -> Any:
    given = fields.get(name)
    return None if given is None else decode(bytes(given), decoder, root=name)


def with_answer(response: KeptResponse, ended: Ended) -> KeptResponse:
    return structs.replace(
        response,
        status=ended.status,
        head=ended.head,
        output=ended.output,
        item_ids=items.own_ids(ended.output),
    )


def for_conversation(response: KeptResponse) -> Sequence[ConversationItem]:
    """What it adds to its conversation. One that came to nothing adds nothing."""
    if response.conversation_id is None or response.status not in ("completed", "incomplete"):
        return ()
    return items.said_in(response)


class Keeper:
    """Stands between the door and the gateway."""

    def __init__(
        self, responses: Responses, conversations: Conversations, gateway: Gateway, clock: Clock
    ) -> None:
        self._responses = responses
        self._conversations = conversations
        self._gateway = gateway
        self._clock = clock

    async def taken(
        self, principal: Principal, envelope: Envelope, exchange: Exchange, request_id: str
    ) -> tuple[Principal, Envelope, Exchange] | None:
        """What to ask, for whom, and where to answer. None: it is answered, for it runs in the background.

        Raises NotFound for what it refers to, Forbidden, TooLarge, BadRequest.
        """
        asked = asked_in(envelope.fields)
        if asked is None:
            return principal, envelope, exchange
        asked = await self.resolved(principal, asked)
        before = await self.before(principal, asked)
        principal = self._held(principal, asked, before)
        if asked.background:
            await self._put_off(principal, envelope, asked, exchange, request_id)
            return None
        marks = Marks(
            ids.new("resp", self._clock),
            asked.stored,
            previous_id=asked.previous_id,
            conversation_id=asked.conversation_id,
        )
        expanded = await self.expanded(principal, envelope, asked, before)
        return principal, expanded, _KeepingExchange(exchange, marks, self, KeptResponse(
            id=marks.response_id,
            tenant=principal.tenant,
            created_by=principal.id,
            status="in_progress",
            head=b"",
            input=asked.input,
            previous_id=asked.previous_id,
            conversation_id=asked.conversation_id,
            labels=principal.residency,
        ))  # fmt: skip

    def _held(self, principal: Principal, asked: Asked, before: Before) -> Principal:
        """With the labels of what it builds on. Raises Forbidden where it cannot be kept, here or in its conversation."""
        labelled = with_labels(principal, (*asked.labels, *before.labels))
        if asked.kept and labelled.residency:
            instead = ": say store: false, and send the conversation along"
            hold_here(labelled, self._gateway.models.home, "the response", field="store", instead=instead)
            if asked.conversation_id is not None:
                hold_together(labelled, before.labels, f"the conversation {asked.conversation_id}")
        return labelled

    async def resolved(self, principal: Principal, asked: Asked) -> Asked:
        """With the items that `input` refers to. Raises NotFound with the path."""
        wanted = items.references(asked.input)
        if not wanted:
            return asked
        found: dict[str, bytes] = {}
        labels: set[str] = set()
        for response in reversed(await self._responses.with_items(principal.tenant, wanted)):
            if allowed(principal, GET, f"response/{response.id}"):
                found |= {item.id: item.body for item in items.said_in(response)}
                labels.update(response.labels)
        told = items.resolved(asked.input, found)
        return structs.replace(asked, input=told, referred=True, labels=tuple(sorted(labels)))

    async def before(self, principal: Principal, asked: Asked) -> Before:
        if asked.conversation_id is not None:
            authorize(principal, CONVERSE, f"conversation/{asked.conversation_id}")
            return await self._of_conversation(principal.tenant, asked.conversation_id)
        if asked.previous_id is not None:
            authorize(principal, GET, f"response/{asked.previous_id}")
            return await self._of_chain(principal.tenant, asked.previous_id)
        return Before()

    async def _of_conversation(self, tenant: str, conversation_id: str) -> Before:
        try:
            labels = (await self._conversations.get(tenant, conversation_id)).labels
            every = await self._conversations.every(tenant, conversation_id)
        except NotFound as error:
            raise NotFound(error.message, field="conversation") from error
        return Before([b"[" + item.body + b"]" for item in every], labels)

    async def _of_chain(self, tenant: str, response_id: str) -> Before:
        try:
            chain = await self._responses.history(tenant, response_id)
        except NotFound as error:
            said = f"Previous {error.message[:1].lower()}{error.message[1:]}"
            raise NotFound(said, field="previous_response_id") from error
        if chain[-1].status in ("queued", "in_progress"):
            raise Conflict(
                f"the response '{response_id}' is still {chain[-1].status}: wait until it has ended",
                field="previous_response_id",
            )
        return Before([array for one in chain for array in (one.input, one.output)], chain[-1].labels)

    async def expanded(
        self, principal: Principal, envelope: Envelope, asked: Asked, before: Before
    ) -> Envelope:
        """The request as a model can answer it that remembers nothing."""
        fields = {name: value for name, value in envelope.fields.items() if name not in DONE_HERE}
        if before.said:
            fields["input"] = Raw(items.joined([*before.said, asked.input]))
        elif asked.referred:
            fields["input"] = Raw(asked.input)
        fields["store"] = _FALSE
        fields["include"] = await self._include(principal, envelope)
        return Envelope(_encode(fields))

    async def _include(self, principal: Principal, envelope: Envelope) -> Raw:
        """Reasoning comes sealed, unless the model is known to have none: OpenAI then refuses to be asked for it."""
        wanted = _read(envelope.fields, "include", _TEXTS) or []
        if SEALED not in wanted and not await self._lacks_reasoning(principal.tenant, envelope.model):
            wanted.append(SEALED)
        return Raw(_encode(wanted))

    async def _lacks_reasoning(self, tenant: str, model: str) -> bool:
        try:
            target = await self._gateway.models.resolve(tenant, model, wire=WIRE)
        except FreeholdError:
            return False  # The gateway says what is wrong with it, and leaves the record.
        return target.facts is not None and "reasoning" in target.facts.lacks

    async def keep(self, response: KeptResponse, marks: Marks, ended: Ended) -> None:
        """Durable on return."""
        whole = with_answer(response, ended)
        told = for_conversation(whole)
        if marks.stored:
            await self._responses.keep(whole, told)
        elif whole.conversation_id is not None and told:
            await self._conversations.add(whole.tenant, whole.conversation_id, told)

    # In the background.

    async def _put_off(
        self, principal: Principal, envelope: Envelope, asked: Asked, exchange: Exchange, request_id: str
    ) -> None:
        target = await self._gateway.models.resolve(principal.tenant, envelope.model, wire=WIRE)
        authorize(principal, ACTION, target.resource)
        if principal.residency:
            within_reach(principal, target)  # So that it is told now.
        marks = Marks(
            ids.new("resp", self._clock),
            stored=True,
            background=True,
            previous_id=asked.previous_id,
            conversation_id=asked.conversation_id,
        )
        begun = marks.begun(envelope.fields, envelope.model, at_s=self._clock.now_ms() // 1000)
        left_out = {*DONE_HERE, "input", "stream"}
        request = {name: value for name, value in envelope.fields.items() if name not in left_out}
        kept = KeptResponse(
            id=marks.response_id,
            tenant=principal.tenant,
            created_by=principal.id,
            status="queued",
            head=_encode(begun),
            input=asked.input,
            previous_id=asked.previous_id,
            conversation_id=asked.conversation_id,
            streamed=envelope.stream,
            request=_encode(request),
            labels=principal.residency,
        )
        queued = {"response": {**begun, "status": "queued", "output": []}}
        kinds = ("response.created", "response.queued")
        first = [
            event_of(kind, {"type": kind, "sequence_number": n, **queued}) for n, kind in enumerate(kinds)
        ]
        events = ResponseEvents(0, len(first), b"".join(first)) if envelope.stream else None
        await self._responses.put_off(kept, events)
        lines = {"request-id": request_id, "x-request-id": request_id, "cache-control": "no-store"}
        if not envelope.stream:
            lines["content-type"] = "application/json"
            await exchange.respond(200, header_lines(lines.items()), shown(kept))
            return
        lines |= {"content-type": "text/event-stream", "x-accel-buffering": "no"}
        exchange.begin(200, header_lines(lines.items()))
        async with followed(self._responses, kept.tenant, kept.id) as pieces:
            async for piece in pieces:
                await exchange.send(piece)
        await exchange.end()


class _KeepingExchange(Exchange):
    """An answer on its way out. Its last piece goes out once it is kept; an answer that cannot be is an error, told once."""

    __slots__ = ("_exchange", "_keeper", "_marks", "_response", "_settled", "_stream")

    direct = False

    def __init__(self, exchange: Exchange, marks: Marks, keeper: Keeper, response: KeptResponse) -> None:
        # Not the base's: there is no connection behind this one but through `exchange`.
        self.head = exchange.head
        self.started = False
        self._exchange = exchange
        self._keeper = keeper
        self._marks = marks
        self._response = response
        self._stream = MarkedStream(marks)
        self._settled = False

    async def respond(self, status: int, lines: bytes, body: bytes) -> None:
        if status == 200:
            ended, body = self._marks.ended(body)
            await self._keeper.keep(self._response, self._marks, ended)
        self.started = True
        await self._exchange.respond(status, lines, body)

    def begin(self, status: int, lines: bytes) -> None:
        self.started = True
        self._exchange.begin(status, lines)

    async def send(self, data: bytes) -> None:
        told = self._stream.feed(data)
        if told:
            await self._exchange.send(told)
        if not self._settled and (last := await self._last()):
            await self._exchange.send(last)

    async def end(self, data: bytes = b"") -> None:
        told = self._stream.feed(data) if data else b""
        told += self._stream.rest()
        if not self._settled:
            told += await self._last()
        await self._exchange.end(told)

    async def _last(self) -> bytes:
        """The event that ends the stream, once the answer is kept. Only tried once: a fault is told as any other."""
        ended = self._stream.ended
        if ended is None:
            return b""
        self._settled = True
        await self._keeper.keep(self._response, self._marks, ended)
        return ended.event
