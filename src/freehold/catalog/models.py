"""Catalog: what models can do (`models.toml`), read once: how much they take and give, what they take in, which ways they have.

Not here: prices (prices.py), and what is refused for it (gateway/capabilities.py).
"""

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest

TOML: Final = "models.toml"

Ability: TypeAlias = Literal["images", "documents", "audio", "tools", "reasoning", "json_schema"]
"""`documents` are PDFs; `reasoning` is thinking that can be asked for; `json_schema` is an answer held to a schema."""

BY_NATURE: Final[frozenset[Ability]] = frozenset({"images", "audio"})
"""What weights can or cannot take in, wherever they run. The rest is a matter of the server around them."""

_SUFFIXES: Final = re.compile(r"(-\d{4}-\d{2}-\d{2}|[-@]20\d{6}|-v\d+(:\d+)?|-\d+:\d+|:[a-z]+|-latest)$")
_VENDOR: Final = re.compile(r"^([a-z]{2,6}\.)?(anthropic|openai|meta|mistral|deepseek|qwen|cohere|google)\.")
_SUFFIXES_MAX: Final = 3


class ModelFacts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`context_tokens`: input and output together. What stands in neither `has` nor `lacks` is not known."""

    name: str
    context_tokens: int | None = None
    output_tokens_max: int | None = None
    has: frozenset[Ability] = frozenset()
    lacks: frozenset[Ability] = frozenset()


class _Maker(Struct, frozen=True, forbid_unknown_fields=True):
    prices: tuple[str, ...]
    docs: tuple[str, ...]
    models: tuple[ModelFacts, ...]


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    """`embeds`: shell patterns of the names of models that make embeddings."""

    maker: tuple[_Maker, ...]
    embeds: tuple[str, ...] = ()


class FactBook:
    """Which model a name means, as far as anything is known of it."""

    def __init__(self, toml: bytes) -> None:
        """Raises BadRequest for an unknown key, a wrong type, or a model that comes twice."""
        try:
            file = msgspec.toml.decode(toml, type=_File)
        except (msgspec.DecodeError, ValueError) as error:
            raise BadRequest(str(error), field=TOML) from error
        makers = file.maker
        self._embeds: Final = file.embeds
        self._makers: Mapping[str, Mapping[str, ModelFacts]] = {
            source: {facts.name.lower(): facts for facts in maker.models}
            for maker in makers
            for source in maker.prices
        }
        self._by_nature: dict[str, ModelFacts] = {}
        for facts in (one for maker in makers for one in maker.models):
            name = facts.name.lower()
            if name in self._by_nature or facts.has & facts.lacks:
                raise BadRequest(f"{facts.name} comes twice, or has what it lacks", field=TOML)
            self._by_nature[name] = ModelFacts(name=facts.name, lacks=facts.lacks & BY_NATURE)

    def find(self, source: str, model: str) -> ModelFacts | None:
        """`source` is a price list's id (ProviderRow.prices). Dated names and those of hosts and routers are found too."""
        for name in _plainer(model):
            facts = self._makers.get(source, {}).get(name) or self._by_nature.get(name)
            if facts is not None:
                return facts
        return None

    def embeds(self, model: str) -> bool | None:
        """Whether it makes embeddings, and so writes nothing. None: its name tells nothing."""
        name = model.lower()
        return True if any(fnmatchcase(name, pattern) for pattern in self._embeds) else None

    def made_by(self, source: str) -> Iterator[ModelFacts]:
        """Of a maker's own address, in the file's order: the best of a family stands before the rest."""
        yield from self._makers.get(source, {}).values()


def _plainer(model: str) -> Iterator[str]:
    """The name, and then without what hosts and dates add to it."""
    name = model.lower()
    yield name
    name = _VENDOR.sub("", name.rsplit("/", 1)[-1])
    yield name
    for _ in range(_SUFFIXES_MAX):
        shorter = _SUFFIXES.sub("", name)
        if shorter == name:
            return
        name = shorter
        yield name


@cache
def facts() -> FactBook:
    """Those that come with Freehold."""
    return FactBook(files("freehold.catalog").joinpath(TOML).read_bytes())
