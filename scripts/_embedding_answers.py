"""Of docs/answers.md: what becomes of every field of every answer with embeddings. See answers_table.py, and _embeddings.py for requests."""

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from _embeddings import wire_of
from _published import Leaf, Object, Several, Tree, tree_of
from _samples import LEFT_OUT, Lost, Reasons, Sample, Samples, differences, path_of, samples_in, shortest

from freehold.core.embeddings import EmbeddingRequest
from freehold.core.errors import FreeholdError, Unsupported

SAMPLES: Final = Path(__file__).parent / "answers" / "embeddings"
ASKED: Final = EmbeddingRequest(model="m", inputs=("hi",))

HEAD: Final = """\
## Embeddings

The answers of models that turn texts into vectors, for clients of each other wire. Where a model is asked once for each text, its
answers are one answer to the client. Bedrock counts tokens in a header, which is told to clients of the others where they have a word for it.
"""


@cache
def samples() -> Mapping[str, Samples]:
    return samples_in(SAMPLES)


def undocumented(name: str) -> list[str]:
    """Fields of the vendor's published types, or of its documents, of which no sample is there."""
    told = samples()[name]
    published = set(told.published)
    if told.types:
        module, _, kind = told.types.partition(":")
        published |= set(_leaves(tree_of(getattr(import_module(module), kind)), ""))
    said = [*(path_of(one.field) for one in told.fields), *told.unsent]
    return sorted(one for one in published if not any(_covers(other, one) for other in said))


def _covers(said: str, path: str) -> bool:
    """A sample is of its field and of all below it."""
    pattern = said.replace("[", "[[]")
    return fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}.*")


def _leaves(tree: Tree, path: str) -> Iterator[str]:
    """Without what can be said in one way only."""
    match tree:
        case Object():
            for name, inner in tree.fields.items():
                yield from _leaves(inner, f"{path}.{name}".lstrip("."))
        case Several(items=Leaf()):
            yield path
        case Several():
            yield from _leaves(tree.items, f"{path}[]")
        case Leaf() if not path.endswith("object"):
            yield path


def fate(source: str, target: str, sample: Sample) -> str:
    """A cell of the table. Raises Lost."""
    base = json.loads(samples()[source].base)
    before, after = _told(source, target, base), _told(source, target, base | json.loads(sample.sets))
    if isinstance(before, FreeholdError):
        raise Lost(f"{source} to {target}: without {sample.field}: {before}")
    if isinstance(after, FreeholdError):
        return "**refused**"
    places = list(differences(before, after, ""))
    return " ".join(f"`{place}`" for place in shortest(places)) if places else LEFT_OUT


def _told(source: str, target: str, answer: Any) -> Any:
    """What a client of `target` gets, or how it is refused."""
    try:
        response = wire_of(source).decode_response(json.dumps(answer).encode())
        return json.loads(wire_of(target).encode_response(response, request=ASKED))
    except Unsupported as error:
        return error


def sections() -> list[str]:
    """Raises Lost, with all that is."""
    lost: list[str] = []
    written = [HEAD, *(_section(name, lost) for name in samples())]
    if lost:
        raise Lost("\n".join(lost))
    return written


def _section(source: str, lost: list[str]) -> str:
    targets = [name for name in samples() if name != source]
    lines = [f"### An answer of {samples()[source].title}", ""]
    lines += [f"| field | {' | '.join(samples()[name].title for name in targets)} |"]
    lines += [f"|---|{'---|' * len(targets)}"]
    reasons = Reasons()
    for sample in samples()[source].fields:
        cells = [fate(source, target, sample) for target in targets]
        if LEFT_OUT in cells and not sample.why:
            lost.append(f"{source}: {sample.field} makes no difference, and nobody says why: {cells}")
        cells = [reasons.cell(sample.why) if cell == LEFT_OUT else cell for cell in cells]
        lines.append(f"| `{sample.field}` | {' | '.join(cells)} |")
    return "\n".join([*lines, *reasons.lines(), ""])
