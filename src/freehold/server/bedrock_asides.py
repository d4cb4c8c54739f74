"""Server: what Bedrock's door answers without asking a model: CountTokens, ListFoundationModels, GetFoundationModel.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html, API_ListFoundationModels.html there.
A count is the vendor's own where it offers one, else an estimate, and then `x-freehold-estimated` says so.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, unquote_to_bytes

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from freehold.core.errors import BadRequest, NotFound
from freehold.core.policy import Principal
from freehold.core.ports import Clock, ModelInfo
from freehold.core.validation import decode
from freehold.gateway import listing
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import Gateway
from freehold.server.bedrock_invoke import ANTHROPIC, dialect_of
from freehold.wires._fields import OBJECT, is_null
from freehold.wires._media import from_base64

CONVERSE: Final = "bedrock_converse"
MODELS: Final = b"/foundation-models"
ESTIMATED: Final = ("x-freehold-estimated", "true")
_FILTERS: Final[Mapping[str, str]] = {
    "byInferenceType": "ON_DEMAND",
    "byCustomizationType": "",
}
"""What all models here are; whoever filters for something else finds none."""

Told = tuple[bytes, list[tuple[str, str]]]
"""A body and further headers."""


class _Invoked(Struct):
    body: str


class _Input(Struct):
    converse: Raw | UnsetType = UNSET
    invoke_model: _Invoked | None = msgspec.field(default=None, name="invokeModel")


class _Asked(Struct):
    input: _Input


_ASKED: Final = msgspec.json.Decoder(_Asked)
_encode: Final = msgspec.json.Encoder().encode


async def count(gateway: Gateway, principal: Principal, model: str, body: bytes) -> Told:
    asked = decode(body, _ASKED).input
    if isinstance(asked.converse, Raw) and not is_null(asked.converse):
        wire, request = CONVERSE, bytes(asked.converse)
    elif asked.invoke_model is not None:
        invoked = from_base64(asked.invoke_model.body, "input.invokeModel.body")
        wire, request, _ = dialect_of(invoked)
        fields = OBJECT.decode(request)
        if wire == ANTHROPIC and "max_tokens" not in fields:
            request = _encode({
                **fields,
                "max_tokens": 1,
            })  # A call must have it; for a count it does not matter.
    else:
        raise BadRequest("expected converse or invokeModel", field="input")
    counted = await gateway.count(principal, Envelope(request, model=model), wire=wire)
    return _encode({"inputTokens": counted.input_tokens}), [ESTIMATED] if counted.estimated else []


async def models(gateway: Gateway, principal: Principal, clock: Clock, target: bytes) -> Told:
    """The list, or the one that the path names."""
    path, _, query = target.partition(b"?")
    listed = await listing.visible(gateway.models, principal, clock=clock)
    _, _, named = path.partition(MODELS)
    if named:
        wanted = unquote_to_bytes(named.lstrip(b"/")).decode("utf-8", "replace")
        for info in listed:
            if wanted in {_id(info), _arn(info)}:
                return _encode({"modelDetails": _summary(info)}), []
        raise NotFound(f"no model {wanted[:200]!r} is listed", field="modelIdentifier")
    given = {name: values[-1] for name, values in parse_qs(query.decode("ascii", "replace")).items()}
    provider, made = given.pop("byProvider", "").lower() or None, given.pop("byOutputModality", None)
    if any(_FILTERS.get(name, value) != value for name, value in given.items()):
        listed = ()
    shown = [
        _summary(info)
        for info in listed
        if provider in {None, info.provider} and made in {None, _output(info)}
    ]
    return _encode({"modelSummaries": shown}), []


def _id(info: ModelInfo) -> str:
    return f"{info.provider}/{info.name}"


def _arn(info: ModelInfo) -> str:
    return f"arn:aws:bedrock:local::foundation-model/{_id(info)}"


def _output(info: ModelInfo) -> str:
    return "EMBEDDING" if info.embeds else "TEXT"


def _summary(info: ModelInfo) -> dict[str, Any]:
    return {
        "modelArn": _arn(info),
        "modelId": _id(info),
        "modelName": info.display_name or info.name,
        "providerName": info.provider,
        "inputModalities": ["TEXT", "IMAGE"] if info.images else ["TEXT"],
        "outputModalities": [_output(info)],
        "responseStreamingSupported": not info.embeds,
        "customizationsSupported": [],
        "inferenceTypesSupported": ["ON_DEMAND"],
        "modelLifecycle": {"status": "ACTIVE"},
    }
