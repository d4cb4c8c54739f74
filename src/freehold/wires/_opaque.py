"""Wires: a vendor's sealed data on its way through the client of another vendor, and back.

A client of one dialect holds the conversation, and another vendor's seal (a thinking signature, encrypted reasoning) must come
back with it. It travels as one string, with its origin inside, in whatever field of the client's dialect is for opaque strings,
since clients keep those unread. It is not protected against change: the vendor that made the seal checks it.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import msgspec

from freehold.core.messages import Opaque
from freehold.wires._marks import holds

_PREFIX: Final = "fh1."
_PREFIX_BYTES: Final = _PREFIX.encode()
_PREFIX_BASE64: Final = b"ZmgxL"
_DECODER: Final = msgspec.json.Decoder(tuple[str, str, str, str, str])


def holds_packed(body: bytes) -> bool:
    """Whether a client's body may have something in it that `packed` made, and so must not reach any vendor as it is.

    As text, or as base64 in the fields of Google's and Bedrock's clients that are bytes.
    """
    return (body.find(b"1") >= 0 and holds(body, _PREFIX_BYTES, b"1")) or (
        body.find(b"Z") >= 0 and holds(body, _PREFIX_BASE64, b"Z")
    )


def packed(opaque: Opaque) -> str:
    origin = (opaque.wire, opaque.provider, opaque.model, opaque.kind, opaque.data)
    return _PREFIX + urlsafe_b64encode(msgspec.json.encode(origin)).decode()


def unpacked(text: str) -> Opaque | None:
    """None where `text` was not made by `packed`."""
    if not text.startswith(_PREFIX):
        return None
    try:
        wire, provider, model, kind, data = _DECODER.decode(urlsafe_b64decode(text[len(_PREFIX) :]))
    except (binascii.Error, msgspec.DecodeError, ValueError):
        return None
    return Opaque(wire, provider, model, data, kind)
