"""Writes docs/wires.md: what becomes of every field of every wire on its way to each other wire. `--check` only compares.

Nothing of it is written by hand: each field of `scripts/wires/*.toml` goes through the wires themselves, and the difference that it
makes is what the page says. A field that makes none must have its reason, in the wires' own tables (ADVISORY, UNSAID) or beside it;
else this fails: it would be lost.
"""

import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from freehold import wires
from freehold.core.errors import FreeholdError, Unsupported

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "wires.md"
SAMPLES: Final = Path(__file__).parent / "wires"
REFUSED: Final = ROOT / "tests" / "matrix" / "refused.toml"
TITLES: Final[Mapping[str, str]] = {
    "anthropic_messages": "Anthropic Messages",
    "bedrock_converse": "Bedrock Converse",
    "google_generate": "Google generateContent",
    "openai_chat": "OpenAI Chat",
    "openai_responses": "OpenAI Responses",
}
"""Of the wires that a model call is translated to."""

ADDRESSED: Final = ("bedrock_converse", "google_generate")
"""Wires of which the model and whether to stream stand in the address."""

_TEXTS: Final = ("content", "system")

HEAD: Final = """\
# What becomes of every field

Any client may call any model. A field of the client's request is then **the same** at the vendor, **translated** (here stands what
becomes of it), **left out** because no answer's meaning hangs on it (the reason stands below the table), or **refused** with its
path. It is never dropped silently. What Freehold does by itself for any model is done **at the door**. Where client and vendor
speak the same wire, the bytes pass as they are. What becomes of [every field of an answer](answers.md) has its own page.

This page is written by `scripts/wires_table.py`, which sends each field through the wires and looks at what comes out; a test keeps
it true.
"""


class Sample(Struct, frozen=True, forbid_unknown_fields=True):
    """`door`: what our door does with it for any model, so that no vendor is sent it."""

    field: str
    sets: str
    over: str = "{}"
    why: str = ""
    door: str = ""


class Samples(Struct, frozen=True, forbid_unknown_fields=True):
    """`types` is where the vendor publishes the fields of its requests: a TypedDict, if its SDK has one."""

    title: str
    base: str
    fields: tuple[Sample, ...]
    types: str = ""


class Lost(Exception):
    """A field makes no difference, and no table says why."""


@cache
def samples() -> Mapping[str, Samples]:
    found = {path.stem: tomllib.loads(path.read_text()) for path in sorted(SAMPLES.glob("*.toml"))}
    return {name: msgspec.convert(one, Samples) for name, one in found.items()}


def undocumented(name: str) -> list[str]:
    """Fields of the vendor's published types of which no sample is there."""
    if not samples()[name].types:
        return []
    module, _, kind = samples()[name].types.partition(":")
    published = getattr(import_module(module), kind).__annotations__
    said = {key for one in samples()[name].fields for key in json.loads(one.sets)}
    return sorted(set(published) - said)


# ------------------------------------------------------------------------------------------------ finding out


def fate(source: str, target: str, sample: Sample) -> str:
    """A cell of the table. Raises Lost."""
    base = json.loads(samples()[source].base) | json.loads(sample.over)
    before, after = _sent(source, target, base), _sent(source, target, base | json.loads(sample.sets))
    if isinstance(after, FreeholdError):
        return "refused"
    if isinstance(before, FreeholdError):
        raise Lost(f"{source} to {target}: without {sample.field}: {before}")
    places = list(differences(before, after, ""))
    if not places:
        addressed = target in ADDRESSED and sample.field in ("model", "stream")
        return "in the address" if addressed else "left out"
    own = json.loads(sample.sets)
    if all(name in after and after[name] == _listed(own)[name] for name in own):
        return "same"
    return " ".join(f"`{place}`" for place in shortest(places))


def _sent(source: str, target: str, body: Any) -> Any:
    """What the vendor gets, or how it is refused."""
    try:
        request = wires.named(source).decode_request(json.dumps(body).encode())
        return _listed(json.loads(wires.named(target).encode_request(request, provider="elsewhere")))
    except Unsupported as error:
        return error


def _listed(value: Any) -> Any:
    """A text that stands for a list with one text in it says the same."""
    if isinstance(value, list):
        return [_listed(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: [{"type": "text", "text": inner}]
        if name in _TEXTS and isinstance(inner, str)
        else _listed(inner)
        for name, inner in value.items()
    }


def differences(before: Any, after: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        if before.get("type") != after.get("type"):
            yield f"{path}: {after.get('type')}"
            return
        for name in [*before, *(name for name in after if name not in before)]:
            inner = f"{path}.{name}" if path else name
            if name not in before or name not in after:
                yield inner
            else:
                yield from differences(before[name], after[name], inner)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for one, other in zip(before, after, strict=True):
            yield from differences(one, other, f"{path}[]")
    elif before != after:
        yield path


def shortest(places: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(places))[:3]


def reason(source: str, target: str, sample: Sample) -> str:
    """Why a field may be left out. Raises Lost where nobody says."""
    if sample.why:
        return sample.why
    module = import_module(f"freehold.wires.{source}")
    place = _last_name(sample.field)
    for entry, why in {**module.ADVISORY, **_unsaid(target)}.items():
        if _last_name(entry) == place or entry in _ALSO.get(place, ()):
            return str(why)
    raise Lost(
        f"{source} to {target}: {sample.field} makes no difference, and neither ADVISORY nor UNSAID says why"
    )


_ALSO: Final[Mapping[str, Sequence[str]]] = {
    "cache_control": ("*.cache", "cache"),
    "prompt_cache_breakpoint": ("*.cache", "cache"),
    "thinking": ("reasoning",),
    "user_id": ("user",),
    "display": ("request.thinking",),
}
"""Names at the vendor that are others in the heart, in whose words UNSAID speaks."""


def _last_name(field: str) -> str:
    return field.partition(":")[0].partition(" ")[0].rstrip("[]").rpartition(".")[2].rstrip("[]")


def _unsaid(target: str) -> Mapping[str, str]:
    found: Mapping[str, str] = import_module(f"freehold.wires.{target}").UNSAID
    return found


# ------------------------------------------------------------------------------------------------ writing


def page() -> str:
    """Raises Lost."""
    parts = [HEAD, *(_section(name) for name in samples()), _refusals()]
    return "\n".join(parts)


def _section(source: str) -> str:
    targets = [name for name in TITLES if name != source]
    titles = [TITLES[name] for name in targets]
    lines = [f"## From a client of {samples()[source].title}", ""]
    lines += [f"| field | {' | '.join(titles)} |", f"|---|{'---|' * len(targets)}"]
    reasons: list[str] = []
    done: list[str] = []
    for sample in samples()[source].fields:
        if sample.door:
            done.append(f"- `{sample.field}`: {sample.door}")
            lines.append(f"| `{sample.field}` |{' at the door |' * len(targets)}")
            continue
        cells = []
        for target in targets:
            told = fate(source, target, sample)
            if told == "left out":
                why = reason(source, target, sample)
                if why not in reasons:
                    reasons.append(why)
                told = f"left out ({reasons.index(why) + 1})"
            cells.append("**refused**" if told == "refused" else told)
        lines.append(f"| `{sample.field}` | {' | '.join(cells)} |")
    if done:
        lines += ["", "Done at the door, for every model:", "", *done]
    lines += ["", "Left out, because it is:", ""]
    lines += [f"{number}. {why}" for number, why in enumerate(reasons, 1)]
    return "\n".join([*lines, ""])


def _refusals() -> str:
    rows = tomllib.loads(REFUSED.read_text()).get("refused", [])
    lines = ["## Conversations that are refused", ""]
    lines += [
        "Every client's SDK runs against every vendor's wire, feature by feature (`tests/matrix`). All pass but these:",
        "",
    ]
    if not rows:
        return "\n".join([
            *lines[:2],
            "None: of what every client's SDK was run with against every vendor's wire (`tests/matrix`), all passes.",
            "",
        ])
    lines += ["| client | vendor | feature | why |", "|---|---|---|---|"]
    lines += [f"| {row['client']} | {row['vendor']} | {row['feature']} | {row['why']} |" for row in rows]
    return "\n".join([*lines, ""])


def written_or_checked(place: Path, page: Callable[[], str]) -> int:
    """How the script ends."""
    try:
        written = page()
    except Lost as lost:
        print(lost)
        return 1
    if "--check" not in sys.argv:
        place.write_text(written)
        return 0
    if place.exists() and place.read_text() == written:
        print(f"docs/{place.name} says what the wires do")
        return 0
    print(f"docs/{place.name} is not what the wires do: run {sys.argv[0]}")
    return 1


if __name__ == "__main__":
    sys.exit(written_or_checked(PAGE, page))
