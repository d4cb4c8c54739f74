"""Writes docs/wires.md: what becomes of every field of every wire on its way to each other wire. `--check` only compares.

Nothing of it is written by hand: each field of `scripts/wires/*.toml` goes through the wires themselves, and the difference that it
makes is what the page says. A field that makes none must have its reason, in the wires' own tables (ADVISORY, UNSAID) or beside it;
else this fails: it would be lost.
"""

import json
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

sys.path.insert(
    0, str(Path(__file__).parent)
)  # Where Python looks for it when this runs as a script, but not in a test.

from _embeddings import sections as embedded
from _samples import LEFT_OUT, Lost, Reasons, Sample, Samples, differences, last_name, samples_in, shortest

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


@cache
def samples() -> Mapping[str, Samples]:
    return samples_in(SAMPLES)


def undocumented(name: str) -> list[str]:
    """Fields of the vendor's published types of which no sample is there."""
    said = {key for one in samples()[name].fields for key in json.loads(one.sets)}
    return sorted(samples()[name].typed() - said)


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
        return "in the address" if addressed else LEFT_OUT
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


def reason(source: str, target: str, sample: Sample) -> str:
    """Why a field may be left out. Raises Lost where nobody says."""
    if sample.why:
        return sample.why
    module = import_module(f"freehold.wires.{source}")
    place = last_name(sample.field)
    for entry, why in {**module.ADVISORY, **_unsaid(target)}.items():
        if last_name(entry) == place or entry in _ALSO.get(place, ()):
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


def _unsaid(target: str) -> Mapping[str, str]:
    found: Mapping[str, str] = import_module(f"freehold.wires.{target}").UNSAID
    return found


# ------------------------------------------------------------------------------------------------ writing


def page() -> str:
    """Raises Lost."""
    parts = [HEAD, *(_section(name) for name in samples()), _refusals(), *embedded()]
    return "\n".join(parts)


def _section(source: str) -> str:
    targets = [name for name in TITLES if name != source]
    titles = [TITLES[name] for name in targets]
    lines = [f"## From a client of {samples()[source].title}", ""]
    lines += [f"| field | {' | '.join(titles)} |", f"|---|{'---|' * len(targets)}"]
    reasons = Reasons()
    done: list[str] = []
    for sample in samples()[source].fields:
        if sample.door:
            done.append(f"- `{sample.field}`: {sample.door}")
            lines.append(f"| `{sample.field}` |{' at the door |' * len(targets)}")
            continue
        cells = []
        for target in targets:
            told = fate(source, target, sample)
            if told == LEFT_OUT:
                told = reasons.cell(reason(source, target, sample))
            cells.append("**refused**" if told == "refused" else told)
        lines.append(f"| `{sample.field}` | {' | '.join(cells)} |")
    if done:
        lines += ["", "Done at the door, for every model:", "", *done]
    return "\n".join([*lines, *reasons.lines(), ""])


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
