"""Wires, Google: thought signatures, between the heart and a field that must be base64.

A signature comes on the part that it seals: a thought, a call, or words and pictures, which have no seal in the heart; there it
becomes a thought without words after them. Another vendor's seal travels as base64 of its packing, since clients keep the field as
bytes. Source: https://ai.google.dev/gemini-api/docs/thought-signatures
"""

import binascii
import re
from base64 import b64encode
from typing import Final

from freehold.core.messages import Opaque
from freehold.wires._fields import may_return
from freehold.wires._opaque import packed, unpacked
from freehold.wires.google_generate._shapes import NAME

THOUGHT: Final = "thought"
"""A thought that came in plain, without a signature: bound to where it came from all the same."""

SEALED: Final = "thought_signature"
"""Of a thought's own signature; one without words, which seals what was before it, is plainly a `signature`."""

UNCHECKED: Final = "skip_thought_signature_validator"
"""What the vendor wants where a call of another model's stands in its conversation."""

_PACKED: Final = "ZmgxL"
"""How base64 of a packing begins."""

_CHECKS: Final = re.compile(r"gemini-(?:[3-9]|[1-9]\d|(?:pro|flash|flash-lite)-latest)")
_URL_SAFE: Final = str.maketrans("-_", "+/")


def plain_base64(text: str) -> str:
    """The vendor takes both alphabets, and its SDK writes the one for addresses."""
    return text.translate(_URL_SAFE) if "-" in text or "_" in text else text


def from_client(signature: str, kind: str = "signature") -> Opaque:
    """A client cannot say from which provider a signature is: of this wire, then, from anybody."""
    if signature.startswith(_PACKED):
        try:
            text = binascii.a2b_base64(plain_base64(signature)).decode()
        except ValueError:
            text = ""
        if found := unpacked(text):
            return found
    return Opaque(NAME, "", "", signature, kind)


def for_client(opaque: Opaque | None) -> str | None:
    """This vendor's own as it is, so that the client may take its conversation elsewhere; another's with its origin."""
    if opaque is None:
        return None
    if opaque.wire == NAME:
        return opaque.data or None
    return b64encode(packed(opaque).encode()).decode()


def for_provider(opaque: Opaque | None, provider: str) -> str | None:
    if opaque is None or not may_return(opaque, NAME, provider):
        return None
    return opaque.data or None


def checks_signatures(model: str) -> bool:
    """Whether this model refuses calls without one."""
    return _CHECKS.match(model.removeprefix("models/")) is not None
