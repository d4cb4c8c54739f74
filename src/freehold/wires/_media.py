"""Wires: bytes inside JSON, as data URLs and base64."""

import binascii
from base64 import b64encode
from typing import Final
from urllib.parse import unquote_to_bytes

from freehold.core.errors import BadRequest
from freehold.core.messages import Address, Bytes

_SHOWN: Final = 40


def base64_of(data: bytes) -> str:
    return b64encode(data).decode()


def from_base64(text: str, path: str) -> bytes:
    """Raises BadRequest for what is no base64. Line breaks are allowed, as vendors allow them."""
    try:
        return binascii.a2b_base64(text)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"expected base64, got {text[:_SHOWN]!r}: {error}", field=path) from error


def data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64_of(data)}"


def source_of(url: str, path: str) -> tuple[str, Bytes | Address]:
    """Media type and source: a data URL's own, or none for an address."""
    if not url.startswith("data:"):
        return "", Address(url)
    head, comma, body = url[5:].partition(",")
    if not comma:
        raise BadRequest(f"expected data:<type>;base64,<data>, got {url[:_SHOWN]!r}", field=path)
    media_type, *parameters = head.split(";")
    if "base64" in parameters:
        return media_type, Bytes(from_base64(body, path))
    return media_type, Bytes(unquote_to_bytes(body))
