"""Writes docs/answers.md: what becomes of every field of every vendor's answer, whole and streamed, for clients of each other wire.

The fields are those that the vendors publish (_published.py); none is written by hand. Each goes through the wires, with and without,
and the difference that it makes for a client is what the page says. One that makes none must have its reason, in
`scripts/answers/*.toml`; else this fails: it would be lost. `--check` only compares.
"""

import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import botocore.session
import msgspec
from msgspec import Raw, Struct, structs

sys.path.insert(
    0, str(Path(__file__).parent)
)  # Where Python looks for it when this runs as a script, but not in a test.

from _embedding_answers import sections as embedded
from _published import Either, Leaf, Object, Several, Tree, filled, tree_of, tree_of_shape
from _samples import Lost, differences, shortest
from wires_table import TITLES, written_or_checked

from freehold import wires
from freehold.core.errors import FreeholdError, Unsupported
from freehold.core.messages import ModelRequest, ModelResponse
from freehold.core.stream import StreamEvent, fold
from freehold.wires import _aws_eventstream
from freehold.wires._opaque import unpacked

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "answers.md"
SAID: Final = Path(__file__).parent / "answers"
ASKED: Final = ModelRequest(
    model="m",
    messages=(),
    stream=True,
    extra={"openai_chat": {"stream_options": Raw(b'{"include_usage":true}')}},
)
STREAMS: Final = ("events[]", "stream[]")
GONE: Final = object()
UNCHANGED: Final = "unchanged"
"""For a group's `value`: another one would not fit the rest of the stream."""

HEAD: Final = """\
# What becomes of every field of an answer

[What becomes of every field](wires.md) of a request has its own page. Here is the way back: any model may answer any client. Of each
field that a vendor publishes, whole and streamed, this page says where a client of another wire finds it; or that it is **left out**,
because of the reason below the table (an answer cannot be refused for saying more than was asked); or that the answer is **refused**
as a whole, since the client's wire has no word for it: so it is with what only a vendor's own tools bring, and a client of another
wire cannot ask for these. `[name]` is the kind of an element: its `type`. Where client and vendor speak the same wire, the bytes
pass as they are.

This page is written by `scripts/answers_table.py`: it takes the fields from the types of the vendors' SDKs (botocore's, for Bedrock),
sends each through the wires with and without, and looks at what comes out. A test keeps it true.
"""


class Group(Struct, frozen=True, forbid_unknown_fields=True):
    """All below `at` is one row. `why`: may be left out. `value` is a sample; `like` says where the same fields stand on the page."""

    at: str
    why: str = ""
    value: str = ""
    like: str = ""


class Said(Struct, frozen=True, forbid_unknown_fields=True):
    """`answer` and `stream` are what fields are put into; `ones`: lists of which each element holds one thing, but for
    what stands `beside` it.

    `never`: paths that stand in the types only, each with the reason.
    """

    answer: str
    answer_type: str
    stream_type: str
    stream: str = ""
    ones: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    never: Mapping[str, str] = {}
    groups: tuple[Group, ...] = ()


class Row(Struct, frozen=True):
    """`steps` lead to it: names, and None for an element of a list, with the element's kind."""

    path: str
    steps: tuple[tuple[str, Tree], ...]
    tree: Tree
    required: bool
    group: Group | None


@cache
def said(name: str) -> Said:
    return msgspec.convert(tomllib.loads((SAID / f"{name}.toml").read_text()), Said)


def names() -> list[str]:
    return sorted(path.stem for path in SAID.glob("*.toml"))


def published(place: str, *, streamed: bool = False) -> Tree:
    """A stream is an object with `events`, but botocore's, which is one itself."""
    module, _, kind = place.partition(":")
    if module == "botocore":
        model = botocore.session.get_session().get_service_model("bedrock-runtime")
        return tree_of_shape(model.operation_model(kind).output_shape)
    tree = tree_of(getattr(import_module(module), kind))
    return Object({"events": Several(tree)}, frozenset({"events"})) if streamed else tree


# ------------------------------------------------------------------------------------------------ the fields


def rows(name: str, tree: Tree) -> list[Row]:
    return list(_rows(said(name), tree, "", (), required=True))


def _rows(
    told: Said, tree: Tree, path: str, steps: tuple[tuple[str, Tree], ...], *, required: bool
) -> Iterator[Row]:
    if any(fnmatchcase(path, _pattern(at)) for at in told.never):
        return
    group = group_of(told, path)
    if group is not None or isinstance(tree, Leaf):
        if group is not None or not _is_constant(path, tree):
            yield Row(path, steps, tree, required, group)
        return
    match tree:
        case Several():
            yield from _rows(told, tree.items, f"{path}[]", (*steps, ("[]", tree.items)), required=True)
        case Either():
            whole = path.removesuffix("[]")
            for tag, member in tree.members.items():
                inner = f"{whole}[{tag}]"
                yield from _rows(told, member, inner, (*steps, (f"={tag}", member)), required=required)
        case Object():
            for field, inner_tree in tree.fields.items():
                inner = f"{path}.{field}" if path else field
                must = field in tree.required and not tree.one
                yield from _rows(told, inner_tree, inner, (*steps, (field, inner_tree)), required=must)


def _is_constant(path: str, tree: Tree) -> bool:
    """What can be said in one way only says nothing: `type`, `object`, `role`."""
    return isinstance(tree, Leaf) and (
        path.rpartition(".")[2] == "type"
        or (len(tree.values) == 1 and path.endswith((".role", "object", "role")))
    )


def group_of(told: Said, path: str) -> Group | None:
    return next((one for one in told.groups if fnmatchcase(path, _pattern(one.at))), None)


def _pattern(at: str) -> str:
    """Only `*` is special: brackets are part of paths."""
    return at.replace("[", "[[]")


# ------------------------------------------------------------------------------------------------ with and without


def with_and_without(base: Any, row: Row, told: Said) -> tuple[Any, Any]:
    before, after = deepcopy(base), deepcopy(base)
    if not row.steps:
        raise Lost("a group takes the whole")
    value = row.group.value if row.group else ""
    for document, there in ((before, False), (after, True)):
        holder, key, existing = _holder(document, row, told)
        if there:
            if value != UNCHANGED:
                holder[key] = json.loads(value) if value else _sample(row, existing)
        elif not row.required and isinstance(holder, dict) and value != UNCHANGED:
            holder.pop(key, None)
    return before, after


def _sample(row: Row, existing: Any) -> Any:
    """What is optional is added; of what must be there, another value."""
    if not isinstance(row.tree, Leaf):
        return filled(row.tree, whole=True)
    if existing is GONE or existing is None:
        return row.tree.values[0]
    if not row.required:
        return existing
    others = [value for value in row.tree.values if value != existing]
    if len(row.tree.values) > 1:
        return others[0]
    if isinstance(existing, bool):
        return not existing
    if isinstance(existing, int | float):
        return existing + 1
    return existing + " more" if isinstance(existing, str) else row.tree.values[0]


def _holder(document: Any, row: Row, told: Said) -> tuple[Any, Any, Any]:
    """Where the value stands: its object or list, its name or place there, and what is there now. Makes what must be around it."""
    holder: Any = {"": document}
    key: Any = ""
    path = ""
    for number, (step, tree) in enumerate(row.steps):
        here = holder[key]
        rest = row.steps[number + 1 :]
        if step == "[]" or step.startswith("="):
            path = f"{path}[]" if step == "[]" else path
            if not isinstance(here, list):  # An Either that is no list's: the object itself is of that kind.
                if here.get("type") != step[1:]:
                    holder[key] = filled(tree, whole=False)
                continue
            if step == "[]" and rest and rest[0][0].startswith("="):
                continue  # The kind says which element.
            alone = path in told.ones and rest[0][0] not in told.beside
            end = len(here) - 2 if path in STREAMS else len(here)  # A stream has an end of its own.
            holder, key = here, _place(here, (step, tree), rest, end, alone=alone)
            continue
        path = f"{path}.{step}" if path else step
        around = row.steps[number - 1][1] if number else None
        if isinstance(around, Object) and around.one and step not in here:
            here.clear()
        holder, key = here, step
        if rest and not isinstance(here.get(step), dict | list):
            here[step] = [] if rest[0][0] == "[]" else filled(tree, whole=False)
            if here[step] is None or not isinstance(here[step], dict | list):
                here[step] = {}
    existing = holder.get(key, GONE) if isinstance(holder, dict) else holder[key]
    return holder, key, existing


def _place(
    here: list[Any], way: tuple[str, Tree], rest: Sequence[tuple[str, Tree]], end: int, *, alone: bool
) -> int:
    """Of the element that has most of the way, or else of a new one."""
    step, tree = way
    fits = [place for place, one in enumerate(here) if step == "[]" or one.get("type") == step[1:]]
    one_thing = alone or (isinstance(tree, Object) and tree.one)
    depths = {place: _depth(here[place], rest) for place in fits}
    nearest = max(depths, key=lambda place: (depths[place], -place), default=None)
    if nearest is not None and (depths[nearest] or not one_thing):
        return nearest
    here.insert(end, {} if one_thing else filled(tree, whole=False))
    return end


def _depth(value: Any, rest: Sequence[tuple[str, Tree]]) -> int:
    """How many steps of the way are there."""
    for number, (step, _) in enumerate(rest):
        if step == "[]" or step.startswith("="):
            if isinstance(value, list):
                found = [one for one in value if step == "[]" or one.get("type") == step[1:]]
                if not found:
                    return number
                value = found[0]
            continue
        if not isinstance(value, dict) or value.get(step) is None:
            return number
        value = value[step]
    return len(rest)


# ------------------------------------------------------------------------------------------------ finding out


def told_whole(source: str, target: str, document: Any) -> Any:
    """What a client of `target` gets, or how it is refused."""
    return _or_refused(
        lambda: _for_client(
            target, wires.named(source).decode_response(_json(document), provider="elsewhere")
        )
    )


def told_streamed(source: str, target: str, document: Any) -> Any:
    """The same of a stream: as the client would put it together."""
    return _or_refused(lambda: _for_client(target, _through_stream(source, target, document)))


def _or_refused(answer: Any) -> Any:
    try:
        return answer()
    except Unsupported as error:
        return error


def _for_client(target: str, response: ModelResponse) -> Any:
    return _unsealed(json.loads(wires.named(target).encode_response(response, created=1)))


def _unsealed(value: Any) -> Any:
    """A vendor's seal as it was: who sealed it is in our packing, too, and no field of the answer. There may be one within another."""
    if isinstance(value, dict):
        return {name: _unsealed(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_unsealed(one) for one in value]
    opaque = unpacked(value) if isinstance(value, str) else None
    if opaque is None:
        return value
    return _unsealed(json.loads(opaque.data)) if opaque.data.startswith("[") else opaque.data


def _through_stream(source: str, target: str, document: Any) -> ModelResponse:
    events = _events(source, b"".join(_pieces(source, document)))
    encoder = wires.named(target).stream_encoder(ASKED, created=1)
    data = b"".join([*(encoder.encode(event) for event in events), encoder.end()])
    return fold(_events(target, data))


def _events(wire: str, data: bytes) -> list[StreamEvent]:
    decoder = wires.named(wire).stream_decoder(provider="elsewhere")
    return [*decoder.feed(data), *decoder.end()]


def _pieces(source: str, document: Any) -> Iterator[bytes]:
    if source == "bedrock_converse":
        for event in document["stream"]:
            ((name, payload),) = event.items()
            yield _aws_eventstream.encode_event(name, _json(payload))
        return
    for event in document.get("events", [document]):
        name = b"event: %s\n" % event["type"].encode() if "type" in event else b""
        yield name + b"data: %s\n\n" % _json(event)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _first_readable(told: Callable[[Any], Any], documents: Sequence[Any]) -> Any:
    """Only the types say of some fields that they may be missing: then the document as it was."""
    for document in documents[:-1]:
        try:
            return told(document)
        except FreeholdError:
            continue
    return told(documents[-1])


def fate(source: str, target: str, row: Row, base: Any, *, streamed: bool) -> str:
    """A cell of the table. Raises Lost."""
    told = told_streamed if streamed else told_whole
    without, with_it = with_and_without(base, row, said(source))
    try:
        has = told(source, target, with_it)
        had = _first_readable(lambda document: told(source, target, document), (without, base))
    except FreeholdError as error:
        raise Lost(f"{source} to {target}: {row.path}: {error} {error.detail or ''}") from error
    if isinstance(has, FreeholdError) or isinstance(had, FreeholdError):
        return "**refused**"
    places = list(differences(had, has, ""))
    if not places and not row.required and not (row.group and row.group.value):
        return fate(source, target, structs.replace(row, required=True), base, streamed=streamed)
    return " ".join(f"`{place}`" for place in shortest(places)) if places else "left out"


# ------------------------------------------------------------------------------------------------ writing


def page() -> str:
    """Raises Lost, with all that is."""
    lost: list[str] = []
    parts = [HEAD, *(_section(name, lost) for name in names())]
    if lost:
        raise Lost("\n".join(lost))
    return "\n".join([*parts, *embedded()])


def _section(source: str, lost: list[str]) -> str:
    told = said(source)
    reasons: list[str] = []
    used: set[str] = set()
    lines = [f"## An answer of {TITLES[source]}", ""]
    lines += _table(source, reasons, used, lost, streamed=False)
    if told.stream_type == told.answer_type:
        lines += ["", "A stream has the same fields, and the same becomes of them but where it is said."]
    else:
        lines += ["", f"### Streamed by {TITLES[source]}", ""]
        lines += _table(source, reasons, used, lost, streamed=True)
    lines += ["", "Left out, because it is:", ""]
    lines += [f"{number}. {why}" for number, why in enumerate(reasons, 1)]
    if told.never:
        lines += ["", "In the types, and never in such an answer:", ""]
        lines += [f"- `{at}`: {why}" for at, why in told.never.items()]
    lost += [f"{source}: no field is {one.at}" for one in told.groups if one.at not in used]
    return "\n".join([*lines, ""])


def _table(
    source: str, reasons: list[str], used: set[str], lost: list[str], *, streamed: bool
) -> Iterator[str]:
    targets = [name for name in TITLES if name != source]
    yield f"| field | {' | '.join(TITLES[name] for name in targets)} |"
    yield f"|---|{'---|' * len(targets)}"
    told = said(source)
    base = json.loads(told.stream if streamed else told.answer)
    seen: set[str] = set()
    for row in rows(source, published(told.stream_type if streamed else told.answer_type, streamed=streamed)):
        if row.group is not None:
            used.add(row.group.at)
        shown = row.path.removeprefix("events")
        if row.group is not None and row.group.like:
            yield f"| `{shown}` | {' | '.join([f'as `{row.group.like}`'] * len(targets))} |"
            continue
        try:
            cells = [cell_of(source, target, row, base, reasons, streamed=streamed) for target in targets]
        except Lost as error:
            lost.append(str(error))
            continue
        line = f"| `{shown}` | {' | '.join(cells)} |"
        if line not in seen:
            seen.add(line)
            yield line


def cell_of(source: str, target: str, row: Row, base: Any, reasons: list[str], *, streamed: bool) -> str:
    told = said(source)
    found = fate(source, target, row, base, streamed=streamed)
    if told.stream_type == told.answer_type:
        found = _both(found, fate(source, target, row, base, streamed=True))
    if "left out" not in found:
        return found
    if row.group is None or not row.group.why:
        raise Lost(
            f"{source} to {target}: {row.path}, {'streamed' if streamed else 'whole'}: is lost, and nobody says why"
        )
    if row.group.why not in reasons:
        reasons.append(row.group.why)
    return found.replace("left out", f"left out ({reasons.index(row.group.why) + 1})")


def _both(whole: str, streamed: str) -> str:
    return whole if whole == streamed else f"{whole}; streamed {streamed}"


if __name__ == "__main__":
    sys.exit(written_or_checked(PAGE, page))
