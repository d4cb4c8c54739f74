"""Wires, OpenAI responses: the request's shapes, as far as the heart knows them; every field beyond them is carried as it came.

Unknown fields are an error of the strict decoders on purpose: that is the quick way, and only objects that have some take the careful
one (`read` in _parts_decode.py).

What every field is: https://platform.openai.com/docs/api-reference/responses/create (and its OpenAPI document).
"""

from typing import Final, TypeAlias

from msgspec import UNSET, Raw, Struct, UnsetType

NAME: Final = "openai_responses"
FILES: Final = "openai_chat"
"""Uploaded files are the same at both of OpenAI's wires; they go by the name of the first."""

ITEM: Final = "item"
"""Kind of an `Opaque` whose data is a whole reasoning item: its id belongs to its seal, and the vendor checks both."""

PART: Final = "content."
"""Before the type of a carried part of a message, which else could not be told from a carried item."""

MESSAGE: Final = "message."
"""Before the fields of the message that a text came in, where texts of several messages stand side by side."""

Field: TypeAlias = Raw | UnsetType


class RequestShape(Struct, kw_only=True):
    model: str
    input: str | list[Raw]
    instructions: str | None = None
    tools: list[Raw] | None = None
    tool_choice: Field = UNSET
    parallel_tool_calls: bool | None = None
    text: Field = UNSET
    reasoning: Field = UNSET
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None
    stream: bool | None = None


class ItemHead(Struct):
    """A message may leave its type out."""

    type: str = "message"


class _Item(Struct, forbid_unknown_fields=True, kw_only=True):
    """`status` is the vendor's to say, and not kept."""

    type: Field = UNSET
    status: Field = UNSET


class MessageItem(_Item, kw_only=True):
    role: str
    content: str | list[Raw]


class CallItem(_Item, kw_only=True):
    call_id: str
    name: str
    arguments: str
    freehold_seal: str | None = None


class CustomCallItem(_Item, kw_only=True):
    call_id: str
    name: str
    input: str
    freehold_seal: str | None = None


class ResultItem(_Item, kw_only=True):
    call_id: str
    output: str | list[Raw]


class SummaryText(Struct):
    text: str = ""


class ReasoningItem(Struct):
    id: str | None = None
    summary: list[SummaryText] | None = None
    content: list[SummaryText] | None = None
    encrypted_content: str | None = None


class PartHead(Struct):
    type: str


class TextPart(Struct, forbid_unknown_fields=True):
    """input_text and output_text."""

    text: str
    type: Field = UNSET
    annotations: Field = UNSET
    logprobs: Field = UNSET
    prompt_cache_breakpoint: Field = UNSET


class RefusalPart(Struct):
    refusal: str


class ImagePart(Struct, forbid_unknown_fields=True):
    type: Field = UNSET
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None
    prompt_cache_breakpoint: Field = UNSET


class FilePart(Struct, forbid_unknown_fields=True):
    type: Field = UNSET
    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None
    detail: str | None = None
    prompt_cache_breakpoint: Field = UNSET


class FunctionTool(Struct, forbid_unknown_fields=True):
    name: str
    type: Field = UNSET
    description: str | None = None
    parameters: Raw = Raw(b"null")
    strict: bool | None = None


def fields_of(shape: type[Struct]) -> frozenset[str]:
    return frozenset(shape.__struct_encode_fields__)


NEUTRAL: Final[dict[str, frozenset[bytes]]] = {
    "background": frozenset({b"false"}),
    "store": frozenset({b"false"}),
    "include": frozenset({b"[]", b'["reasoning.encrypted_content"]'}),
    "metadata": frozenset({b"{}"}),
    "top_logprobs": frozenset({b"0"}),
    "truncation": frozenset({b'"disabled"'}),
}
"""Values that say what is the case anyway: answers are not kept by the vendor, and reasoning comes sealed, so that it can return."""
