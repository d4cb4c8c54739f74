"""What vendors publish of their answers, from the types of their SDKs and from botocore's service model, as one kind of tree.

Not here: what becomes of the fields (answers_table.py). Of a field that may be text or something finer, the text is taken.
"""

import datetime
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin

from msgspec import Struct
from pydantic import BaseModel

BLOBS: Final = ("c2FtcGxl", "b3RoZXI=")
PLAIN: Final[Mapping[Any, tuple[Any, ...]]] = {
    str: ("sample",),
    int: (7,),
    float: (0.5,),
    bool: (True,),
    bytes: BLOBS,
    datetime.datetime: ("2026-01-02T03:04:05Z", "2027-01-02T03:04:05Z"),
}
AWS_PLAIN: Final[Mapping[str, tuple[Any, ...]]] = {
    "string": ("sample",),
    "integer": (7,),
    "long": (7,),
    "double": (0.5,),
    "float": (0.5,),
    "boolean": (True,),
    "blob": BLOBS,
}


class Leaf(Struct, frozen=True):
    """`values`: what it may hold; where that is open, one sample."""

    values: tuple[Any, ...]


class Object(Struct, frozen=True):
    """`required` are of `fields`. `one` says that a single field is there at a time, and `tag` what the object's `type` is."""

    fields: "Mapping[str, Tree]"
    required: frozenset[str] = frozenset()
    one: bool = False
    tag: str = ""


class Several(Struct, frozen=True):
    items: "Tree"


class Either(Struct, frozen=True):
    """Objects, told apart by their `type`."""

    members: Mapping[str, Object]


Tree: TypeAlias = Leaf | Object | Several | Either
ANYTHING: Final = Leaf(({"sample": 1},))


def tree_of(kind: Any, above: tuple[Any, ...] = ()) -> Tree:
    """Of a type with which an SDK publishes an answer. What holds itself ends in anything."""
    origin = get_origin(kind)
    if origin is Annotated:
        return tree_of(get_args(kind)[0], above)
    if origin in (Union, types.UnionType):
        return _either([one for one in get_args(kind) if one is not types.NoneType], above)
    if origin is Literal:
        return Leaf(get_args(kind))
    if origin is list:
        return Several(tree_of(get_args(kind)[0], above))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return ANYTHING if kind in above else _object(kind, (*above, kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return Leaf(tuple(one.value for one in kind))
    return Leaf(PLAIN[kind]) if kind in PLAIN else ANYTHING


def _object(kind: type[BaseModel], above: tuple[Any, ...]) -> Object:
    fields = {one.alias or name: one for name, one in kind.model_fields.items()}
    trees = {name: tree_of(one.annotation, above) for name, one in fields.items()}
    required = frozenset(name for name, one in fields.items() if one.is_required())
    told = trees.get("type")
    return Object(trees, required, tag=str(told.values[0]) if isinstance(told, Leaf) else "")


def _either(kinds: list[Any], above: tuple[Any, ...]) -> Tree:
    trees = [tree_of(one, above) for one in kinds]
    members: dict[str, Object] = {}
    for tree in trees:
        if isinstance(tree, Either):
            members |= tree.members
        elif isinstance(tree, Object) and tree.tag:
            members[tree.tag] = tree
    plain = [tree for tree in trees if isinstance(tree, Leaf)]
    if plain or not members:
        return plain[0] if plain else trees[0]
    return next(iter(members.values())) if len(trees) == 1 else Either(members)


def tree_of_shape(shape: Any, above: tuple[str, ...] = ()) -> Tree:
    """Of one of botocore's. Exceptions in a stream are no fields of an answer."""
    if shape.name in above:
        return ANYTHING
    above = (*above, shape.name)
    if shape.type_name == "list":
        return Several(tree_of_shape(shape.member, above))
    if shape.type_name == "structure" and getattr(shape, "is_document_type", False):
        return ANYTHING
    if shape.type_name == "structure":
        members = {name: one for name, one in shape.members.items() if not one.metadata.get("exception")}
        trees = {name: tree_of_shape(one, above) for name, one in members.items()}
        if shape.serialization.get("eventstream"):
            return Several(Object(trees, one=True))
        return Object(
            trees, frozenset(shape.required_members), one=bool(getattr(shape, "is_tagged_union", False))
        )
    if getattr(shape, "enum", None):
        return Leaf(tuple(shape.enum))
    return Leaf(AWS_PLAIN[shape.type_name]) if shape.type_name in AWS_PLAIN else ANYTHING


# ------------------------------------------------------------------------------------------------ making some


def filled(tree: Tree, *, whole: bool) -> Any:
    """A value of it: with all that may be there, or only what must."""
    match tree:
        case Leaf():
            return tree.values[0]
        case Several():
            return [filled(tree.items, whole=True)] if whole else []
        case Either():
            return filled(next(iter(tree.members.values())), whole=whole)
        case Object():
            return {name: filled(tree.fields[name], whole=whole) for name in _names(tree, whole=whole)}


def _names(tree: Object, *, whole: bool) -> Iterator[str]:
    if tree.one:
        yield next(iter(tree.fields))
        return
    yield from (name for name in tree.fields if whole or name in tree.required)
