"""Wires: what the embeddings of Bedrock's InvokeModel share: texts alone, unreadable answers, and errors under our names or theirs."""

import re
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from freehold.core.embeddings import EmbeddingRequest
from freehold.core.errors import BadRequest, FreeholdError, Unavailable, Unsupported
from freehold.core.ports import ErrorBody
from freehold.core.validation import decode
from freehold.wires._aws_errors import encode_error

Shape = TypeVar("Shape")

_HEARTS: Final = re.compile(r"(task|dimensions|inputs)(\[\d+\])?")


def texts_of(request: EmbeddingRequest) -> list[str]:
    """Raises Unsupported for tokens."""
    texts: list[str] = []
    for index, one in enumerate(request.inputs):
        if not isinstance(one, str):
            raise Unsupported("Bedrock's models take texts here, not tokens", field=f"inputs[{index}]")
        texts.append(one)
    return texts


def only_text_of(request: EmbeddingRequest) -> str:
    """Raises Unsupported for several."""
    texts = texts_of(request)
    if len(texts) != 1:
        raise Unsupported(f"expected one text in a call, got {len(texts)}", field="inputs")
    return texts[0]


def answered(body: bytes, decoder: "msgspec.json.Decoder[Shape]") -> Shape:
    """Raises Unavailable for what is none."""
    try:
        return decode(body, decoder)
    except BadRequest as error:
        said = f"answered with something that is no embedding: {error}"
        raise Unavailable(said, detail=body[:1000].decode("utf-8", "replace")) from error


def told(error: FreeholdError, request_id: str, words: Mapping[str, str]) -> ErrorBody:
    """`words` are the dialect's for the heart's fields, which another wire's refusal names."""
    at = _HEARTS.fullmatch(error.field or "")
    if at is not None:
        error.field = words[at[1]] + (at[2] or "")
    return encode_error(error, request_id)
