"""The facts in the logs of kept responses and of conversations: sessions of a kind of their own, in which no agent acts.

What clients and vendors said is kept byte for byte as it came (`Raw`: JSON). Facts hold only what is new, and never change; but what
somebody deletes out of a conversation is erased. What a log says so far: responses.py.
Source: https://platform.openai.com/docs/api-reference/responses, https://platform.openai.com/docs/api-reference/conversations.
"""

from typing import Final, Literal, TypeAlias

from msgspec import Raw, Struct

SessionKind: TypeAlias = Literal["agent", "response", "conversation"]
"""What a log is about: an agent's conversation with the world; an answer of the Responses API; a conversation of such answers."""

ResponseStatus: TypeAlias = Literal["queued", "in_progress", "completed", "failed", "cancelled", "incomplete"]
EMPTY: Final = Raw(b"[]")
UNSAID: Final = Raw()
"""Where nothing is said: left out of the JSON."""


class ResponseAsked(Struct, frozen=True, tag="response_asked", omit_defaults=True, kw_only=True):
    """First in the log of a response in the background, once; any other's is within its end. `input`, an array of items, is what came with this request alone: what was said before is with
    `previous_id`, or in the conversation. `labels` are those of the request and of all that it built on: it is kept, and gone on with, only
    where they say.

    Of one in the background, `head` is the response object as it began, without its output, `request` what else to ask the model; `streamed`:
    what its client is told is kept, too.
    """

    input: Raw
    head: Raw = UNSAID
    by: str = ""
    request: Raw = UNSAID
    previous_id: str | None = None
    conversation_id: str | None = None
    streamed: bool = False
    labels: tuple[str, ...] = ()


class ResponseBegun(Struct, frozen=True, tag="response_begun"):
    """A worker is about to ask the model: one attempt more."""


class ResponseHandedBack(Struct, frozen=True, tag="response_handed_back"):
    """It was stopped in good order before anything was told: that attempt does not count."""


class ResponseTold(Struct, frozen=True, tag="response_told"):
    """`count` server-sent events of its stream in one piece, numbered from `first` on, as they go to clients."""

    first: int
    count: int
    body: str


class ResponseEnded(Struct, frozen=True, tag="response_ended", omit_defaults=True, kw_only=True):
    """Last in its log. One that its client waited for is this fact alone, with what was `asked`. `head` is the response object as it ended; unsaid: as it began. `item_ids` are those of `output`'s items, by which clients
    may refer to them."""

    status: ResponseStatus
    head: Raw = UNSAID
    output: Raw = EMPTY
    item_ids: tuple[str, ...] = ()
    asked: ResponseAsked | None = None


class ConversationStarted(Struct, frozen=True, tag="conversation_started", omit_defaults=True, kw_only=True):
    """First in a conversation's log, once. `labels` hold for everything in it."""

    metadata: Raw
    by: str = ""
    labels: tuple[str, ...] = ()


class ItemAdded(Struct, frozen=True, tag="item_added"):
    """`item` is its JSON, as a model is told of it. Ids are the vendors' or ours, and those of vendors need not be unique."""

    id: str
    item: Raw


class ItemErased(Struct, frozen=True, tag="item_erased"):
    """Stands where an item was added that somebody deleted: what it said is gone."""

    id: str


class ItemDeleted(Struct, frozen=True, tag="item_deleted", kw_only=True):
    """Events `seqs` said what nobody is to read any more: they are erased."""

    id: str
    seqs: tuple[int, ...]


class MetadataChanged(Struct, frozen=True, tag="metadata_changed"):
    metadata: Raw


ResponseEvent: TypeAlias = ResponseAsked | ResponseBegun | ResponseHandedBack | ResponseTold | ResponseEnded
ConversationEvent: TypeAlias = ConversationStarted | ItemAdded | ItemErased | ItemDeleted | MetadataChanged
OF_OTHER_KINDS: Final[frozenset[type]] = frozenset((
    ResponseAsked, ResponseBegun, ResponseHandedBack, ResponseTold, ResponseEnded,
    ConversationStarted, ItemAdded, ItemErased, ItemDeleted, MetadataChanged,
))  # fmt: skip
"""Than agents' sessions."""
