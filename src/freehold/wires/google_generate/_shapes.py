"""Wires, Google: the request's shapes as the vendor has them.

Unknown fields are an error of the strict decoder on purpose: it is the quick way, and only bodies that have some, or that use the
snake_case names which the vendor takes too, go the careful one (_tidy.py). Sources: https://ai.google.dev/api/generate-content,
https://ai.google.dev/api/caching#Content, and the types of the vendor's SDK.
"""

from typing import Final, TypeAlias

from msgspec import UNSET, Raw, Struct, UnsetType

NAME: Final = "google_generate"

Field: TypeAlias = Raw | UnsetType
"""JSON that is carried as it is."""


class BlobShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    mime_type: str = ""
    data: str = ""
    display_name: str | None = None


class FileShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    file_uri: str
    mime_type: str | None = None
    display_name: str | None = None


class CallShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    name: str
    args: Field = UNSET
    id: str | None = None


class ResultPartShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    inline_data: BlobShape | None = None
    file_data: FileShape | None = None


class ResultShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    name: str
    response: Field = UNSET
    id: str | None = None
    parts: list[ResultPartShape] | None = None


class PartShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """One of text, data, file, call and result; `thought` says that the text is one."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: BlobShape | None = None
    file_data: FileShape | None = None
    function_call: CallShape | None = None
    function_response: ResultShape | None = None


class ContentShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """`function` is the older role of results."""

    parts: list[PartShape] = []
    role: str | None = None


class DeclarationShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    name: str
    description: str | None = None
    parameters: Field = UNSET
    parameters_json_schema: Field = UNSET


class ToolShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    function_declarations: list[DeclarationShape] | None = None


class CallingShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    mode: str | None = None
    allowed_function_names: list[str] | None = None


class ToolConfigShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    function_calling_config: CallingShape | None = None


class ThinkingShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | None = None


class GenerationShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """`topK` and the like come as 40.0 from the vendor's own SDK."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    response_mime_type: str | None = None
    response_schema: Field = UNSET
    response_json_schema: Field = UNSET
    thinking_config: ThinkingShape | None = None


class RequestShape(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """`model` may stand here too; it is the address that counts."""

    contents: list[ContentShape]
    system_instruction: ContentShape | None = None
    tools: list[ToolShape] | None = None
    tool_config: ToolConfigShape | None = None
    generation_config: GenerationShape | None = None
    model: str | None = None
    safety_settings: Field = UNSET
    cached_content: Field = UNSET
    labels: Field = UNSET
    service_tier: Field = UNSET
    store: Field = UNSET


CARRIED: Final = ("safetySettings", "cachedContent", "labels", "serviceTier", "store")
"""Top-level fields that ride in `extra` as they are."""

GENERATION: Final = "generationConfig."
THINKING: Final = "generationConfig.thinkingConfig."
TOOL_CONFIG: Final = "toolConfig."
CALLING: Final = "toolConfig.functionCallingConfig."
RESULT: Final = "functionResponse."
CALL: Final = "functionCall."
PERMISSIVE: Final = "safetySettings.permissive"
"""Objects whose own fields ride in `extra` one by one, under these prefixes; and a setting that asks for no filter."""

INNER: Final[dict[tuple[type[Struct], str], type[Struct]]] = {
    (RequestShape, "contents"): ContentShape,
    (RequestShape, "systemInstruction"): ContentShape,
    (RequestShape, "tools"): ToolShape,
    (RequestShape, "toolConfig"): ToolConfigShape,
    (RequestShape, "generationConfig"): GenerationShape,
    (ContentShape, "parts"): PartShape,
    (PartShape, "inlineData"): BlobShape,
    (PartShape, "fileData"): FileShape,
    (PartShape, "functionCall"): CallShape,
    (PartShape, "functionResponse"): ResultShape,
    (ResultShape, "parts"): ResultPartShape,
    (ResultPartShape, "inlineData"): BlobShape,
    (ResultPartShape, "fileData"): FileShape,
    (ToolShape, "functionDeclarations"): DeclarationShape,
    (ToolConfigShape, "functionCallingConfig"): CallingShape,
    (GenerationShape, "thinkingConfig"): ThinkingShape,
}
LISTS: Final = frozenset({"contents", "tools", "parts", "functionDeclarations"})
"""What is a list of objects. The vendor takes a single one, too: its own first examples had it so."""

NEUTRAL: Final[dict[str, frozenset[bytes]]] = {
    "candidateCount": frozenset({b"1"}),
    "responseLogprobs": frozenset({b"false"}),
    "responseModalities": frozenset({b'["TEXT"]', b'["text"]', b"[]"}),
    "audioTimestamp": frozenset({b"false"}),
    "safetySettings": frozenset({b"[]"}),
    "labels": frozenset({b"{}"}),
    "behavior": frozenset({b'"BLOCKING"', b'"UNSPECIFIED"'}),
    "cachedContent": frozenset({b'""'}),
}
"""Values that say what is the case anyway."""


def says_something(name: str, value: Field) -> bool:
    if isinstance(value, UnsetType):
        return False
    json = bytes(value)
    return json != b"null" and json not in NEUTRAL.get(name, ())
