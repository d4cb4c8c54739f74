"""Wires, Bedrock Converse: the shapes of the request, as AWS's service model has them.

A block is an object with one key, which says what it is. Unknown fields are an error of these decoders on purpose: what they don't
know is then taken out, and carried (`shaped`). Source: botocore's `bedrock-runtime` service-2.json, and
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html.
"""

from collections.abc import Mapping
from typing import Final, Generic, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from freehold.core.validation import decode
from freehold.wires._fields import NO_FIELDS, is_null, parted

NAME: Final = "bedrock_converse"

Cache: TypeAlias = Literal["5m", "1h"] | None
Block: TypeAlias = dict[str, Raw]
T = TypeVar("T", bound=Struct)

_encode: Final = msgspec.json.Encoder().encode


class S3Location(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    uri: str
    bucket_owner: str | None = None


class Source(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """`text` and `content` are of documents only. Bytes are base64 on the wire."""

    data: bytes | UnsetType = msgspec.field(default=UNSET, name="bytes")
    s3_location: S3Location | None = None
    text: str | None = None
    content: Raw | UnsetType = UNSET


class MediaBlock(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """Image, video, audio and document; only documents have a name, and may come without a format."""

    source: Source
    format: str | None = None
    name: str | None = None
    context: str | None = None
    citations: Raw | UnsetType = UNSET


class ToolUseBlock(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    tool_use_id: str
    name: str
    input: Raw = Raw(b"{}")
    type: str | None = None


class ToolResultBlock(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    tool_use_id: str
    content: list[Block]
    status: Literal["success", "error"] | None = None
    type: str | None = None


class ReasoningText(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    text: str
    signature: str | None = None


class ReasoningBlock(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    reasoning_text: ReasoningText | None = None
    redacted_content: str | None = None


class CachePoint(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    type: str
    ttl: Literal["5m", "1h"] | None = None


class CitedText(Struct, forbid_unknown_fields=True, rename="camel"):
    text: str


class CitationsContent(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    content: list[CitedText] | None = None
    citations: Raw | UnsetType = UNSET


class GuardText(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    text: str
    qualifiers: list[str] | None = None


class GuardContent(Struct, forbid_unknown_fields=True, rename="camel"):
    text: GuardText


class MessageShape(Struct, forbid_unknown_fields=True, rename="camel"):
    role: Literal["user", "assistant", "system"]
    content: list[Block]


class InputSchema(Struct, forbid_unknown_fields=True, rename="camel"):
    json: Raw


class ToolSpecification(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    name: str
    input_schema: InputSchema
    description: str | None = None
    strict: bool | None = None


class NamedTool(Struct, forbid_unknown_fields=True, rename="camel"):
    name: str


class ToolChoiceShape(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    auto: dict[str, Raw] | None = None
    any: dict[str, Raw] | None = None
    tool: NamedTool | None = None


class ToolConfig(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    tools: list[Block]
    tool_choice: ToolChoiceShape | None = None


class InferenceConfig(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: list[str] | None = None


class JsonSchema(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """`schema` is JSON in a string."""

    schema: str
    name: str | None = None
    description: str | None = None


class OutputStructure(Struct, forbid_unknown_fields=True, rename="camel"):
    json_schema: JsonSchema


class TextFormat(Struct, forbid_unknown_fields=True, rename="camel"):
    type: Literal["json_schema"]
    structure: OutputStructure


class RequestShape(Struct, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """The model's id and whether to stream are in the address."""

    messages: list[Raw] | None = None
    system: list[Block] | None = None
    inference_config: Raw | UnsetType = UNSET
    tool_config: ToolConfig | None = None
    additional_model_request_fields: dict[str, Raw] | None = None
    output_config: dict[str, Raw] | None = None


class Shape(Generic[T]):
    """Decodes one shape, and hands over the fields that it does not know."""

    __slots__ = ("_decoder", "_known")

    def __init__(self, shape: type[T]) -> None:
        self._decoder = msgspec.json.Decoder(shape)
        self._known = frozenset(shape.__struct_encode_fields__)

    def read(self, json: bytes | Raw, path: str) -> tuple[T, Mapping[str, Raw]]:
        """Raises BadRequest with the path."""
        try:
            return self._decoder.decode(json), NO_FIELDS
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            fields, rest = parted(json, self._known, path)
        rest = {name: value for name, value in rest.items() if not is_null(value)}
        return decode(_encode(fields), self._decoder, root=path), rest


MEDIA: Final = Shape(MediaBlock)
TOOL_USE: Final = Shape(ToolUseBlock)
TOOL_RESULT: Final = Shape(ToolResultBlock)
TOOL_SPEC: Final = Shape(ToolSpecification)
MESSAGE: Final = Shape(MessageShape)
INFERENCE: Final = Shape(InferenceConfig)
REQUEST: Final = Shape(RequestShape)

CACHE_POINT: Final = msgspec.json.Decoder(CachePoint)
REASONING: Final = msgspec.json.Decoder(ReasoningBlock)
CITATIONS: Final = msgspec.json.Decoder(CitationsContent)
GUARD: Final = msgspec.json.Decoder(GuardContent)
TEXT: Final = msgspec.json.Decoder(str)
TEXT_FORMAT: Final = msgspec.json.Decoder(TextFormat)
