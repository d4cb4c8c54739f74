"""Items of the Responses API, as kept and as shown. Pure. Source: https://platform.openai.com/docs/api-reference/responses/input-items.

Items are kept as they came, and so are given to models. What a listing needs besides (ids, statuses, content in parts) is made
when they are shown, the same every time.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from freehold.core.errors import BadRequest, NotFound
from freehold.core.responses import ConversationItem, KeptResponse, PastResponse
from freehold.core.validation import decode

EMPTY: Final = b"[]"
PLACE_DIGITS: Final = 4
REFERENCE: Final = b"item_reference"

_PREFIXES: Final[Mapping[str, str]] = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
_HAVE_STATUS: Final = frozenset({"message", "function_call", "function_call_output"})


class ItemHead(Struct):
    """A message may leave its type out."""

    type: str = "message"
    id: str | None = None


_RAWS: Final = msgspec.json.Decoder(list[Raw])
_HEADS: Final = msgspec.json.Decoder(list[ItemHead])
_TEXT: Final = msgspec.json.Decoder(str)
_FIELDS: Final = msgspec.json.Decoder(dict[str, Any])
_encode: Final = msgspec.json.Encoder().encode


def array_of(given: Raw | None, *, field: str = "input") -> bytes:
    """A request's `input` as an array of items. Raises BadRequest."""
    if given is None or bytes(given) == b"null":
        return EMPTY
    json = bytes(given)
    if json.startswith(b'"'):
        content = [{"type": "input_text", "text": decode(json, _TEXT, root=field)}]
        return _encode([{"type": "message", "role": "user", "content": content}])
    decode(json, _HEADS, root=field)
    return json


def references(array: bytes) -> list[str]:
    """Ids of items that the client left out, since it knows them to be kept."""
    if REFERENCE not in array:
        return []
    return [head.id or "" for head in _HEADS.decode(array) if head.type == REFERENCE.decode()]


def own_ids(array: bytes) -> tuple[str, ...]:
    """Of items that came with one."""
    return tuple(head.id for head in _HEADS.decode(array) if head.id)


def resolved(array: bytes, found: Mapping[str, bytes]) -> bytes:
    """With the items themselves in the place of references. Raises NotFound."""
    told: list[Raw] = []
    for place, (head, item) in enumerate(zip(_HEADS.decode(array), _RAWS.decode(array), strict=True)):
        if head.type != REFERENCE.decode():
            told.append(item)
        elif (referred := found.get(head.id or "")) is not None:
            told.append(Raw(referred))
        else:
            raise NotFound(f"Item with id '{(head.id or '')[:80]}' not found.", field=f"input[{place}].id")
    return _encode(told)


def joined(arrays: Iterable[bytes]) -> bytes:
    """Arrays as one, without a look at what is in them."""
    inner = (array.strip()[1:-1].strip() for array in arrays)
    return b"[" + b",".join(one for one in inner if one) + b"]"


def made_id(kind: str, owner_id: str, place: int) -> str:
    """Of an item that came without: the same whenever it is asked for. `owner_id` is the response's, or any that is used once."""
    return f"{_PREFIXES.get(kind, 'item')}_{owner_id.partition('_')[2]}{place:0{PLACE_DIGITS}x}"


def identified(array: bytes, owner_id: str, *, first: int = 0) -> list[ConversationItem]:
    """Each item with its id, its own or a made one; the items stay as they are. `first` is the place of the first."""
    heads = _HEADS.decode(array)
    return [
        ConversationItem(head.id or made_id(head.type, owner_id, place), bytes(item))
        for place, (head, item) in enumerate(zip(heads, _RAWS.decode(array), strict=True), first)
    ]


def said_in(response: PastResponse | KeptResponse) -> list[ConversationItem]:
    """What a response adds to its conversation."""
    told = identified(response.input, response.id)
    return [*told, *identified(response.output, response.id, first=len(told))]


def shown(item: ConversationItem) -> dict[str, Any]:
    """As listings have it."""
    fields = _FIELDS.decode(item.body)
    kind = fields.get("type", "message")
    shape = {"type": kind, **fields, "id": item.id}
    if kind in _HAVE_STATUS:
        shape["status"] = fields.get("status") or "completed"
    if kind == "message":
        shape["content"] = _content(fields)
    return shape


def _content(fields: Mapping[str, Any]) -> Any:
    content = fields.get("content")
    if isinstance(content, str):
        kind = "output_text" if fields.get("role") == "assistant" else "input_text"
        content = [{"type": kind, "text": content}]
    if not isinstance(content, list):
        return []
    return [_part(part) for part in content]


def _part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    match part.get("type"):
        case "output_text":
            return {"annotations": [], "logprobs": [], **part}
        case "input_image":
            return {"detail": "auto", **part}
        case _:
            return part


class ItemPage(Struct, frozen=True):
    """`first_id` and `last_id` are empty where there is nothing."""

    data: tuple[dict[str, Any], ...]
    first_id: str
    last_id: str
    has_more: bool
    object: str = "list"


def page(items: Sequence[ConversationItem], *, more: bool) -> ItemPage:
    data = tuple(shown(item) for item in items)
    return ItemPage(data, items[0].id if items else "", items[-1].id if items else "", more)


def is_newest_first(order: str) -> bool:
    if order not in ("asc", "desc"):
        raise BadRequest(f"expected asc or desc, got {order[:20]!r}", field="order")
    return order == "desc"
