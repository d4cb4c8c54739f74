"""Wires, Anthropic: the request's shapes as the vendor has them.

Unknown fields are an error of the strict decoder on purpose: it is the quick way, and only bodies that have some take the careful
one (_request_decode.py). Sources: https://platform.claude.com/docs/en/api/messages, and the types of the vendor's SDK.
"""

from typing import Final, Literal, TypeAlias

from msgspec import UNSET, Raw, Struct, UnsetType

NAME: Final = "anthropic_messages"

Field: TypeAlias = Raw | UnsetType
"""JSON that is carried as it is."""

Cache: TypeAlias = Literal["5m", "1h"] | None


class CacheControl(Struct, forbid_unknown_fields=True, omit_defaults=True):
    type: Literal["ephemeral"] | UnsetType = UNSET
    ttl: Literal["5m", "1h"] | None = None


class Base64Source(Struct, tag="base64", tag_field="type", forbid_unknown_fields=True):
    media_type: str
    data: str


class UrlSource(Struct, tag="url", tag_field="type", forbid_unknown_fields=True):
    url: str


class FileSource(Struct, tag="file", tag_field="type", forbid_unknown_fields=True):
    file_id: str


class TextSource(Struct, tag="text", tag_field="type", forbid_unknown_fields=True):
    media_type: str
    data: str


class ContentSource(Struct, tag="content", tag_field="type", forbid_unknown_fields=True):
    content: Raw


ImageSource: TypeAlias = Base64Source | UrlSource | FileSource
DocumentSource: TypeAlias = Base64Source | UrlSource | FileSource | TextSource | ContentSource


class TextBlock(
    Struct, tag="text", tag_field="type", forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    text: str
    cache_control: CacheControl | None = None
    citations: Field = UNSET


class ImageBlock(Struct, tag="image", tag_field="type", forbid_unknown_fields=True, omit_defaults=True):
    source: ImageSource
    cache_control: CacheControl | None = None
    transformations: Field = UNSET


class DocumentBlock(Struct, tag="document", tag_field="type", forbid_unknown_fields=True, omit_defaults=True):
    source: DocumentSource
    title: str | None = None
    cache_control: CacheControl | None = None
    citations: Field = UNSET
    context: Field = UNSET


class ThinkingBlock(Struct, tag="thinking", tag_field="type", forbid_unknown_fields=True):
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Struct, tag="redacted_thinking", tag_field="type", forbid_unknown_fields=True):
    data: str


class ToolUseBlock(
    Struct, tag="tool_use", tag_field="type", forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    """`freehold_seal` is ours: another vendor's seal of the call, on its way through this vendor's client."""

    id: str
    name: str
    input: Raw
    cache_control: CacheControl | None = None
    caller: Field = UNSET
    toolset_name: Field = UNSET
    freehold_seal: str | None = None


ResultBlock: TypeAlias = TextBlock | ImageBlock | DocumentBlock


class ToolResultBlock(
    Struct, tag="tool_result", tag_field="type", forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    tool_use_id: str
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None
    toolset_name: Field = UNSET


Block: TypeAlias = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
)


class MessageShape(Struct, forbid_unknown_fields=True, gc=False):
    """`system` in the middle of a conversation is of the newer models. (No `gc`: there are many, which live briefly, and in no circle.)"""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class ToolShape(Struct, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    input_schema: Raw
    description: str | None = None
    type: Literal["custom"] | None = None
    cache_control: CacheControl | None = None
    strict: bool | None = None
    allowed_callers: Field = UNSET
    defer_loading: Field = UNSET
    eager_input_streaming: Field = UNSET
    input_examples: Field = UNSET


class ToolChoiceShape(Struct, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class RequestShape(Struct, forbid_unknown_fields=True, kw_only=True):
    """`output_format` is the older place of `output_config.format`."""

    model: str
    messages: list[MessageShape]
    max_tokens: int
    system: str | list[TextBlock] | None = None
    tools: list[ToolShape] | None = None
    tool_choice: ToolChoiceShape | None = None
    output_config: dict[str, Raw] | None = None
    output_format: Field = UNSET
    thinking: Field = UNSET
    metadata: dict[str, Raw] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stream: bool | None = None
    betas: Field = UNSET
    cache_control: Field = UNSET
    container: Field = UNSET
    context_management: Field = UNSET
    diagnostics: Field = UNSET
    inference_geo: Field = UNSET
    mcp_servers: Field = UNSET
    service_tier: Field = UNSET
    speed: Field = UNSET
    user_profile_id: Field = UNSET
    workspace_id: Field = UNSET


CARRIED: Final = RequestShape.__struct_fields__[RequestShape.__struct_fields__.index("betas") :]
"""Top-level fields that ride in `extra` as they are."""

TOOL_FIELDS: Final = ("allowed_callers", "defer_loading", "eager_input_streaming", "input_examples")

NEUTRAL: Final[dict[str, frozenset[bytes]]] = {
    "citations": frozenset({b'{"enabled":false}', b'{"enabled": false}', b"[]"}),
    "caller": frozenset({b'{"type":"direct"}', b'{"type": "direct"}'}),
    "allowed_callers": frozenset({b'["direct"]'}),
    "defer_loading": frozenset({b"false"}),
    "eager_input_streaming": frozenset({b"false"}),
    "input_examples": frozenset({b"[]"}),
    "mcp_servers": frozenset({b"[]"}),
    "service_tier": frozenset({b'"auto"'}),
    "speed": frozenset({b'"standard"'}),
}
"""Values that say what is the case anyway."""

BLOCKS_BY_TYPE: Final[dict[str, type[Struct]]] = {
    "text": TextBlock,
    "image": ImageBlock,
    "document": DocumentBlock,
    "thinking": ThinkingBlock,
    "redacted_thinking": RedactedThinkingBlock,
    "tool_use": ToolUseBlock,
    "tool_result": ToolResultBlock,
}
RESULT_BLOCKS: Final = ("text", "image", "document")


def says_something(name: str, value: Raw | UnsetType) -> bool:
    if value is UNSET:
        return False
    json = bytes(value)
    return json != b"null" and json not in NEUTRAL.get(name, ())
