"""What msgspec says of wrong input, in a caller's words: the path, what was expected, what came, and the near miss."""

import difflib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from freehold.core.errors import BadRequest

_AT: Final = re.compile(r" - at `(?:key in )?\$(?P<path>[^`]*)`$")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<field>.*)`")
_MISSING: Final = re.compile(r"Object missing required field `(?P<field>.*)`")
_NO_CHOICE: Final = re.compile(r"Invalid enum value (?P<given>.*)", re.DOTALL)
_TIMES: Final = {
    "Invalid RFC3339 encoded datetime": "expected a time like 2026-11-21T04:36:00Z",
    "Invalid RFC3339 encoded date": "expected a day like 2026-11-21",
}
_STEP: Final = re.compile(r"\.(?P<name>[^.\[]+)|\[[^\]]*\]")
_SHAPES_MAX: Final = 256
_JSON_AT: Final = re.compile(r"\(byte (?P<byte>\d+)\)")
_MARKS: Final = str.maketrans({"`": "'"})

T = TypeVar("T")


def near(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'model'?)`, or nothing."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""


def explained(
    error: msgspec.ValidationError, *, root: str = "", known: Iterable[str] = (), shape: object = None
) -> BadRequest:
    """`root` stands before the path. `shape` is what was expected, and `known` its own fields, where they are told in other words."""
    text = str(error)
    at = _AT.search(text)
    inside = at["path"] if at else ""
    path = root + inside
    said = text[: at.start()] if at else text
    there = () if shape is None else _expected(shape, inside)
    names = tuple(() if at else known) or _names(there)
    if choice := _NO_CHOICE.match(said):
        choices = [
            str(value) for one in there if isinstance(one, inspect.LiteralType) for value in one.values
        ]
        given = choice["given"]
        if choices:
            listed = f"expected one of {', '.join(choices)}; got {given}{near(given.strip(chr(39)), choices)}"
            return BadRequest(listed, field=path.lstrip(".") or None)
    if unknown := _UNKNOWN.match(said):
        field = unknown["field"]
        listed = f"; known: {', '.join(names)}" if names else ""
        return BadRequest(f"unknown field {field!r}{near(field, names)}{listed}", field=_join(path, field))
    if missing := _MISSING.match(said):
        return BadRequest("required, but missing", field=_join(path, missing["field"]))
    said = _TIMES.get(said, said)
    return BadRequest(said[:1].lower() + said[1:].translate(_MARKS), field=path.lstrip(".") or None)


@lru_cache(maxsize=_SHAPES_MAX)
def _read(shape: Any) -> inspect.Type:
    return inspect.type_info(shape)


def _expected(shape: Any, path: str) -> Sequence[inspect.Type]:
    """What may stand at the path; nothing where that is not known."""
    found = _among(_read(shape))
    for step in _STEP.finditer(path):
        found = [deeper for one in found for deeper in _inside(one, step["name"])]
    return found


def _inside(outer: inspect.Type, name: str | None) -> Sequence[inspect.Type]:
    match outer:
        case inspect.StructType():
            return [one for field in outer.fields if field.encode_name == name for one in _among(field.type)]
        case inspect.ListType() | inspect.VarTupleType():
            return _among(outer.item_type)
        case inspect.DictType():
            return _among(outer.value_type)
        case _:
            return ()


def _among(one: inspect.Type) -> Sequence[inspect.Type]:
    return one.types if isinstance(one, inspect.UnionType) else (one,)


def _names(expected: Sequence[inspect.Type]) -> tuple[str, ...]:
    """Of the fields of the one kind of object that is expected."""
    shapes = [one for one in expected if isinstance(one, inspect.StructType)]
    return tuple(field.encode_name for field in shapes[0].fields) if len(shapes) == 1 else ()


def _join(path: str, field: str) -> str:
    return f"{path}.{field}".lstrip(".")


def convert(value: object, shape: type[T], *, root: str = "") -> T:
    """`value` as `shape`. Raises BadRequest with the path."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise explained(error, root=root, shape=shape) from error


def decode(
    body: bytes, decoder: "msgspec.json.Decoder[T]", *, root: str = "", known: Iterable[str] = ()
) -> T:
    """JSON as the decoder's type. Raises BadRequest: where the JSON breaks off, or the path of what is wrong in it."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise explained(error, root=root, known=known, shape=decoder.type) from error
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
