"""Gateway: which models here could do what another lacks. Asked only once a request is refused, so it may take its time."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice, zip_longest
from typing import Final, TypeAlias

from freehold.catalog.models import FactBook, ModelFacts
from freehold.core.messages import ModelRequest
from freehold.gateway.capabilities import Lack, is_able
from freehold.gateway.targets import Upstream

NAMED_MAX: Final = 5

MayCall: TypeAlias = Callable[[str], bool]
"""Whether who asks may call the model of this resource name."""


def able(
    upstreams: Sequence[Upstream], book: FactBook, may_call: MayCall, lack: Lack, request: ModelRequest
) -> Sequence[str]:
    """Up to NAMED_MAX names as a caller writes them, of models that may be called: one of each provider in turn."""
    each = [_of(upstream, book, may_call, lack, request) for upstream in upstreams]
    in_turn = (name for round_ in zip_longest(*each) for name in round_ if name is not None)
    return list(islice(in_turn, NAMED_MAX))


def _of(
    upstream: Upstream, book: FactBook, may_call: MayCall, lack: Lack, request: ModelRequest
) -> Iterator[str]:
    for name, facts in _known(upstream, book):
        if is_able(facts, lack, request) and may_call(f"model/{upstream.row.name}/{name}"):
            yield f"{upstream.row.name}/{name}"


def _known(upstream: Upstream, book: FactBook) -> Iterator[tuple[str, ModelFacts]]:
    source = upstream.known_by
    if source is None:
        return
    if upstream.has_listed:
        yield from ((facts.name, facts) for facts in book.made_by(source))
    for name in upstream.offered:
        facts = book.find(source, name)
        if facts is not None:
            yield name, facts
