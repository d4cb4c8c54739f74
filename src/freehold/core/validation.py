"""What msgspec says of wrong input, in a caller's words: the path, what was expected, what came, and the near miss."""

import difflib
import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec

from freehold.core.errors import BadRequest

_AT: Final = re.compile(r" - at `(?:key in )?\$(?P<path>[^`]*)`$")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<field>.*)`")
_MISSING: Final = re.compile(r"Object missing required field `(?P<field>.*)`")
_JSON_AT: Final = re.compile(r"\(byte (?P<byte>\d+)\)")
_MARKS: Final = str.maketrans({"`": "'"})

T = TypeVar("T")


def near(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'model'?)`, or nothing."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""


def explained(error: msgspec.ValidationError, *, root: str = "", known: Iterable[str] = ()) -> BadRequest:
    """`root` stands before the path; `known` are the outermost object's fields."""
    text = str(error)
    at = _AT.search(text)
    path = root + (at["path"] if at else "")
    said = text[: at.start()] if at else text
    names = () if at else tuple(known)
    if unknown := _UNKNOWN.match(said):
        field = unknown["field"]
        listed = f"; known: {', '.join(names)}" if names else ""
        return BadRequest(f"unknown field {field!r}{near(field, names)}{listed}", field=_join(path, field))
    if missing := _MISSING.match(said):
        return BadRequest("required, but missing", field=_join(path, missing["field"]))
    return BadRequest(said[:1].lower() + said[1:].translate(_MARKS), field=path.lstrip(".") or None)


def _join(path: str, field: str) -> str:
    return f"{path}.{field}".lstrip(".")


def convert(value: object, shape: type[T], *, root: str = "") -> T:
    """`value` as `shape`. Raises BadRequest with the path."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise explained(error, root=root, known=_fields(shape)) from error


def decode(
    body: bytes, decoder: "msgspec.json.Decoder[T]", *, root: str = "", known: Iterable[str] = ()
) -> T:
    """JSON as the decoder's type. Raises BadRequest: where the JSON breaks off, or the path of what is wrong in it."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise explained(error, root=root, known=known) from error
    except msgspec.DecodeError as error:
        at = _JSON_AT.search(str(error))
        where = f" at byte {at['byte']}" if at else ""
        said = f"expected JSON, got something that breaks{where}: {_start(body)}"
        raise BadRequest(said, field=root or None) from error
    except UnicodeDecodeError as error:
        raise BadRequest("expected JSON in UTF-8, got other bytes in a string", field=root or None) from error
    except RecursionError as error:
        raise BadRequest("expected JSON, got nesting that is too deep", field=root or None) from error


def check_limit(limit: int, limit_max: int) -> None:
    """Of a page, or of what is taken at once."""
    if not 1 <= limit <= limit_max:
        raise BadRequest(f"expected 1 to {limit_max}, got {limit}", field="limit")


def _start(body: bytes) -> str:
    if not body:
        return "an empty body"
    return f"it begins with {body[:40].decode('utf-8', 'replace')!r}"


def _fields(shape: Any) -> tuple[str, ...]:
    return tuple(getattr(shape, "__struct_encode_fields__", ()))
