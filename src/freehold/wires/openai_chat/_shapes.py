"""Wires, OpenAI chat: the request's shapes as the vendor has them, and the vendors who follow it extend them.

Unknown fields are an error of the strict decoder on purpose: it is the quick way, and only bodies that have some take the careful
one (request_decode.py). What a conversation has many of has no `gc`: it lives briefly, and in no circle. What every field is: https://platform.openai.com/docs/api-reference/chat/create (and its OpenAPI document).
"""

from typing import Final, Literal, TypeAlias

from msgspec import UNSET, Raw, Struct, UnsetType

NAME: Final = "openai_chat"

Field: TypeAlias = Raw | UnsetType
"""JSON that is carried as it is."""


class CacheControl(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Not OpenAI's: OpenRouter and others take Anthropic's mark on text parts."""

    type: Literal["ephemeral"] | UnsetType = UNSET
    ttl: Literal["5m", "1h"] | None = None


class TextPart(
    Struct, tag="text", tag_field="type", forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    text: str
    cache_control: CacheControl | None = None
    prompt_cache_breakpoint: Field = UNSET


class RefusalPart(Struct, tag="refusal", tag_field="type", forbid_unknown_fields=True):
    refusal: str


class ImageUrl(Struct, forbid_unknown_fields=True, omit_defaults=True):
    url: str
    detail: str | None = None


class ImagePart(Struct, tag="image_url", tag_field="type", forbid_unknown_fields=True, omit_defaults=True):
    image_url: ImageUrl | str
    prompt_cache_breakpoint: Field = UNSET


class InputAudio(Struct, forbid_unknown_fields=True):
    data: str
    format: str


class AudioPart(Struct, tag="input_audio", tag_field="type", forbid_unknown_fields=True, omit_defaults=True):
    input_audio: InputAudio
    prompt_cache_breakpoint: Field = UNSET


class File(Struct, forbid_unknown_fields=True, omit_defaults=True):
    filename: str | None = None
    file_data: str | None = None
    file_id: str | None = None


class FilePart(Struct, tag="file", tag_field="type", forbid_unknown_fields=True, omit_defaults=True):
    file: File
    prompt_cache_breakpoint: Field = UNSET


class VideoUrl(Struct, forbid_unknown_fields=True):
    url: str


class VideoPart(Struct, tag="video_url", tag_field="type", forbid_unknown_fields=True, omit_defaults=True):
    """Not OpenAI's: vLLM, SGLang and OpenRouter take it."""

    video_url: VideoUrl | str


UserPart: TypeAlias = TextPart | ImagePart | AudioPart | FilePart | VideoPart
AssistantPart: TypeAlias = TextPart | RefusalPart
ToolPart: TypeAlias = TextPart | ImagePart


class FunctionCall(Struct, forbid_unknown_fields=True, gc=False):
    name: str
    arguments: str | None = None


class ToolCallShape(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """`extra_content` holds Gemini's thought signatures: https://ai.google.dev/gemini-api/docs/openai"""

    id: str | None = None
    type: Literal["function", "custom"] | UnsetType = UNSET
    function: FunctionCall | None = None
    custom: Field = UNSET
    index: int | None = None
    extra_content: Field = UNSET


class SystemMessage(Struct, tag="system", tag_field="role", forbid_unknown_fields=True, omit_defaults=True):
    content: str | list[TextPart]
    name: str | None = None


class DeveloperMessage(
    Struct, tag="developer", tag_field="role", forbid_unknown_fields=True, omit_defaults=True
):
    content: str | list[TextPart]
    name: str | None = None


class UserMessage(
    Struct, tag="user", tag_field="role", forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    content: str | list[UserPart]
    name: str | None = None


class AssistantMessage(
    Struct, tag="assistant", tag_field="role", forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    """`reasoning_content` (DeepSeek, Qwen), `reasoning` (vLLM, OpenRouter), `reasoning_details` (OpenRouter) are not OpenAI's."""

    content: str | list[AssistantPart] | UnsetType | None = UNSET
    refusal: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: Field = UNSET
    tool_calls: list[ToolCallShape] | None = None
    audio: Field = UNSET
    function_call: Field = UNSET
    annotations: Field = UNSET


class PlainMessage(Struct, omit_defaults=True, gc=False):
    """A user's or an assistant's, to a provider, of one text: what the two have in common."""

    role: str
    content: str
    name: str | None = None


class ToolMessage(
    Struct, tag="tool", tag_field="role", forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    tool_call_id: str
    content: str | list[ToolPart]
    name: str | None = None


class FunctionMessage(
    Struct, tag="function", tag_field="role", forbid_unknown_fields=True, omit_defaults=True
):
    """The form before tools. Carried whole."""

    name: str
    content: str | None


MessageShape: TypeAlias = (
    SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage
)


class Function(Struct, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    description: str | None = None
    parameters: Field = UNSET
    strict: bool | None = None


class ToolShape(Struct, forbid_unknown_fields=True, kw_only=True):
    type: Literal["function"] = "function"
    function: Function
    cache_control: CacheControl | UnsetType | None = UNSET


class RequestShape(Struct, forbid_unknown_fields=True, kw_only=True):
    model: str
    messages: list[MessageShape]
    tools: list[ToolShape] | None = None
    tool_choice: Field = UNSET
    parallel_tool_calls: bool | None = None
    response_format: Field = UNSET
    reasoning_effort: str | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None
    stream: bool | None = None
    audio: Field = UNSET
    frequency_penalty: Field = UNSET
    function_call: Field = UNSET
    functions: Field = UNSET
    logit_bias: Field = UNSET
    logprobs: Field = UNSET
    metadata: Field = UNSET
    modalities: Field = UNSET
    moderation: Field = UNSET
    n: Field = UNSET
    prediction: Field = UNSET
    presence_penalty: Field = UNSET
    prompt_cache_key: Field = UNSET
    prompt_cache_options: Field = UNSET
    prompt_cache_retention: Field = UNSET
    safety_identifier: Field = UNSET
    service_tier: Field = UNSET
    store: Field = UNSET
    stream_options: Field = UNSET
    top_logprobs: Field = UNSET
    verbosity: Field = UNSET
    web_search_options: Field = UNSET


CARRIED: Final = RequestShape.__struct_fields__[RequestShape.__struct_fields__.index("audio") :]
"""Top-level fields of OpenAI's own that ride in `extra` as they are."""

NEUTRAL: Final[dict[str, frozenset[bytes]]] = {
    "frequency_penalty": frozenset({b"0", b"0.0"}),
    "presence_penalty": frozenset({b"0", b"0.0"}),
    "logit_bias": frozenset({b"{}"}),
    "logprobs": frozenset({b"false"}),
    "modalities": frozenset({b'["text"]'}),
    "n": frozenset({b"1"}),
    "top_logprobs": frozenset({b"0"}),
}
"""Values that say what is the case anyway: many SDKs send them, and no other wire need refuse them."""

MESSAGES_BY_ROLE: Final[dict[str, type[Struct]]] = {
    "system": SystemMessage,
    "developer": DeveloperMessage,
    "user": UserMessage,
    "assistant": AssistantMessage,
    "tool": ToolMessage,
    "function": FunctionMessage,
}
PARTS_BY_TYPE: Final[dict[str, type[Struct]]] = {
    "text": TextPart,
    "image_url": ImagePart,
    "input_audio": AudioPart,
    "file": FilePart,
    "video_url": VideoPart,
    "refusal": RefusalPart,
}
