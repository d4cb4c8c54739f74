"""Of docs/wires.md: what becomes of every field of every wire of embeddings. See wires_table.py."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from _samples import (
    LEFT_OUT,
    Lost,
    Reasons,
    Sample,
    Samples,
    differences,
    last_name,
    path_of,
    samples_in,
    shortest,
)
from msgspec import structs

from freehold.core.errors import BadRequest, FreeholdError, Unsupported
from freehold.core.ports import EmbeddingWire
from freehold.wires._google_names import camel

SAMPLES: Final = Path(__file__).parent / "wires" / "embeddings"
IN_BODY: Final = frozenset({"openai_embeddings", "google_embed"})
"""Wires whose bodies name the model. With the others it stands in the address alone."""

ONE_TEXT: Final = frozenset({"bedrock_titan_embed", "bedrock_nova_embed"})
"""Their providers ask a call for each text."""

HEAD: Final = """\
## Embeddings

Any client of embeddings may ask any model that makes them, too: texts go in, floats come out. The words are those of above; **a call
for each** is one for each text, to models that take one at a time. What stands for several fields (`of each another`) says that they
are not the same in all requests of a batch.
"""


@cache
def samples() -> Mapping[str, Samples]:
    return samples_in(SAMPLES)


def wire_of(name: str) -> EmbeddingWire:
    found: EmbeddingWire = import_module(f"freehold.wires.{name}").EMBEDDINGS
    return found


def undocumented(name: str) -> list[str]:
    """Fields of the vendor's published types, or of its documents, of which no sample is there."""
    said = {path_of(one.field) for one in samples()[name].fields}
    names = {last_name(path) for path in said}
    typed = {camel(one) if name.startswith("google") else one for one in samples()[name].typed()}
    missing = typed - names - {*samples()[name].unsent}
    return sorted(missing | {*samples()[name].published} - said)


def fate(source: str, target: str, sample: Sample) -> str:
    """A cell of the table. Raises Lost."""
    base = json.loads(samples()[source].base) | json.loads(sample.over)
    own = json.loads(sample.sets)
    before, after = _sent(source, target, base), _sent(source, target, base | own)
    if isinstance(before, FreeholdError):
        raise Lost(f"{source} to {target}: without {sample.field}: {before}")
    if isinstance(after, FreeholdError):
        return "refused"
    if len(before) != len(after):
        return "a call for each"
    places = [
        place for one, other in zip(before, after, strict=True) for place in differences(one, other, "")
    ]
    if not places:
        addressed = target not in IN_BODY and last_name(sample.field) == "model"
        return "in the address" if addressed else LEFT_OUT
    if all(name in after[0] and after[0][name] == own[name] for name in own):
        return "same"
    return " ".join(f"`{place}`" for place in shortest(places))


def _sent(source: str, target: str, body: Any) -> list[Any] | FreeholdError:
    """The bodies that the vendor gets, or how it is refused."""
    try:
        request = wire_of(source).decode_request(json.dumps(body).encode())
        inputs = [(one,) for one in request.inputs] if target in ONE_TEXT else [request.inputs]
        parts = [structs.replace(request, inputs=part) for part in inputs]
        return [json.loads(wire_of(target).encode_request(part)) for part in parts]
    except (Unsupported, BadRequest) as error:
        return error


def reason(source: str, target: str, sample: Sample) -> str:
    """Why a field may be left out. Raises Lost where nobody says."""
    if sample.why:
        return sample.why
    ours, theirs = import_module(f"freehold.wires.{source}"), import_module(f"freehold.wires.{target}")
    for entry, why in {**ours.ADVISORY, **getattr(theirs, "UNSAID", {})}.items():
        if last_name(entry) == last_name(sample.field):
            return str(why)
    raise Lost(
        f"{source} to {target}: {sample.field} makes no difference, and neither ADVISORY nor UNSAID says why"
    )


def sections() -> list[str]:
    """Raises Lost."""
    return [HEAD, *(_section(name) for name in samples())]


def _section(source: str) -> str:
    targets = [name for name in samples() if name != source]
    lines = [f"### From a client of {samples()[source].title}", ""]
    lines += [f"| field | {' | '.join(samples()[name].title for name in targets)} |"]
    lines += [f"|---|{'---|' * len(targets)}"]
    reasons = Reasons()
    for sample in samples()[source].fields:
        cells = []
        for target in targets:
            told = fate(source, target, sample)
            if told == LEFT_OUT:
                told = reasons.cell(reason(source, target, sample))
            cells.append("**refused**" if told == "refused" else told)
        lines.append(f"| `{sample.field}` | {' | '.join(cells)} |")
    return "\n".join([*lines, *reasons.lines(), ""])
