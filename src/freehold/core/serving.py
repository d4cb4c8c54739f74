"""What a route declares beside its models: whether earlier answers are given again (`cache`), and how well it is to serve (`slo`). Pure.

Not here: the cache itself (gateway/cache.py), and what is done about a target that is missed (gateway/slo.py).
"""

from collections.abc import Iterator
from typing import Final, Literal

from msgspec import Struct

TTL_S_MAX: Final = 31 * 86_400.0
FIRST_TOKEN_S_MAX: Final = 3600.0
ERROR_SHARE_MAX: Final = 0.5


class Semantic(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Also answers of requests that mean the same: whose last text of the user's, as `model` embeds it (`provider/name`), has a cosine
    similarity of at least `similarity_min`, and which are otherwise the same.
    """

    model: str
    similarity_min: float = 0.95


class Cache(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Earlier answers are given again for `ttl_s` seconds, to the same request of the same `scope`.

    `answers`: those of requests that say that chance has no part in them (`temperature: 0`, or a `seed`), or all. A client asks for more
    by `cache-control: max-age=...`, and for none by `no-store` or `no-cache`. `tool_calls`: answers that call tools, too. `shared`: with
    the installation's other processes, in its database.
    """

    ttl_s: float = 3600.0
    scope: Literal["tenant", "team", "user", "key"] = "tenant"
    answers: Literal["deterministic", "all"] = "deterministic"
    tool_calls: bool = False
    shared: bool = False
    semantic: Semantic | None = None


class Slo(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """How well calls are to be served: `first_token_p95_s`: at most one in twenty streams may begin later. `error_share_max`: the share
    of calls that may fail. `demotes`: a model that uses up what may go wrong far too fast is asked after the others.
    """

    first_token_p95_s: float | None = None
    error_share_max: float | None = None
    demotes: bool = True


def problems(cache: Cache | None, slo: Slo | None) -> Iterator[tuple[str, str]]:
    """Paths, and what is wrong there."""
    if cache is not None:
        if not 0 < cache.ttl_s <= TTL_S_MAX:
            yield "cache.ttl_s", f"expected more than 0, up to {TTL_S_MAX:g} seconds, got {cache.ttl_s}"
        semantic = cache.semantic
        if semantic is not None and not 0 < semantic.similarity_min <= 1:
            yield "cache.semantic.similarity_min", f"expected 0 to 1, got {semantic.similarity_min}"
        if semantic is not None and "/" not in semantic.model.strip("/"):
            yield "cache.semantic.model", f"expected provider/name, got {semantic.model[:80]!r}"
    if slo is not None:
        first_s, share = slo.first_token_p95_s, slo.error_share_max
        if first_s is None and share is None:
            yield "slo", "expected first_token_p95_s or error_share_max"
        if first_s is not None and not 0 < first_s <= FIRST_TOKEN_S_MAX:
            yield "slo.first_token_p95_s", f"expected more than 0 seconds, got {first_s}"
        if share is not None and not 0 < share <= ERROR_SHARE_MAX:
            yield "slo.error_share_max", f"expected more than 0, up to {ERROR_SHARE_MAX:g}, got {share}"
