"""Gateway: a call's way past earlier answers: is there one for it, and is the new one kept. Only routes that declare a `cache` come here.

What is in this process's memory is found at once; the database is looked in only where the route says `shared`, and by meaning only
where it says `semantic`. Not here: which requests are the same (cache.py), the database (store/answers.py).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct, structs

from freehold.core.answers import KeptAnswer, KeptAnswers, Likeness
from freehold.core.errors import FreeholdError
from freehold.core.messages import ModelRequest, ModelResponse, Text, text_of
from freehold.core.policy import Principal
from freehold.core.ports import Clock
from freehold.core.records import Cached, Choice
from freehold.core.serving import Cache
from freehold.gateway.cache import (
    Keeping,
    Memory,
    Note,
    Wish,
    decoded,
    directives,
    encoded,
    keepable,
    key_of,
    member_of,
    wish,
)
from freehold.gateway.metering import Meter
from freehold.gateway.residency import Place, unmet
from freehold.gateway.targets import Routed, Target

TEXT_CHARS_MAX: Final = 8_000
"""A longer last text is not compared by its meaning."""

Embed: TypeAlias = Callable[[Principal, str, str], Awaitable[Sequence[float]]]
"""A principal, a model's name and a text to its vector. A call of its own, with a record of its own. Raises as a call does."""


class Earlier(Struct, frozen=True):
    """An answer that is given again, and who gave it."""

    response: ModelResponse
    target: Target


class Caching:
    """`home` is where this installation is: what is labelled is kept only there. `kept` is the database's."""

    def __init__(
        self, clock: Clock, home: Place, kept: KeptAnswers | None = None, *, memory: Memory | None = None
    ) -> None:
        self._clock = clock
        self._home = home
        self._kept = kept
        self._memory = Memory() if memory is None else memory

    async def earlier(
        self, meter: Meter, request: ModelRequest | None, asked_for: str | None, routed: Routed,
        action: str, embed: Embed,
    ) -> Earlier | None:  # fmt: skip
        """None where somebody is to be asked; the meter then says whether, and as what, the answer is kept.

        Raises BadRequest for directives that are none.
        """
        policy, principal = routed.route.cache, meter.principal
        wanted = directives(asked_for)
        if (
            policy is None
            or request is None
            or unmet(principal.residency, self._home.regions, self._home.labels)
        ):
            return None
        asked = wish(routed.route, policy, principal, meter.account, request, wanted)
        if asked is None:
            return None
        likeness: Likeness | None = None
        found = await self._exact(asked) if asked.reads else None
        if found is not None and (earlier := self._again(meter, asked, found, routed, action, "exact")):
            return earlier
        if policy.semantic is not None and self._kept is not None:
            likeness = await self._likeness(principal, policy, asked, routed, embed)
            if asked.reads and likeness is not None:
                near = await self._kept.near(
                    principal.tenant, likeness, similarity_min=policy.semantic.similarity_min
                )
                if near is not None and (
                    earlier := self._again(meter, asked, near[0], routed, action, "semantic", near[1])
                ):
                    return earlier
        meter.cache = Note(hit=False)
        meter.keeping = Keeping(asked, likeness) if asked.keeps else None
        return None

    def keep(self, keeping: Keeping, response: ModelResponse, model: str) -> None:
        """Of a call that ended well."""
        asked = keeping.wish
        if not keepable(asked.policy, response):
            return
        now_ms = self._clock.now_ms()
        answer = KeptAnswer(
            tenant=asked.tenant, key=asked.key, model=model, body=encoded(response),
            kept_at_ms=now_ms, expires_at_ms=now_ms + int(asked.policy.ttl_s * 1000),
        )  # fmt: skip
        self._memory.add(answer)
        if self._kept is not None and (asked.policy.shared or keeping.likeness is not None):
            self._kept.add(answer, keeping.likeness)

    async def _exact(self, asked: Wish) -> KeptAnswer | None:
        found = self._memory.get(asked.tenant, asked.key, self._clock.now_ms())
        if found is None and asked.policy.shared and self._kept is not None:
            found = await self._kept.get(asked.tenant, asked.key)
            if found is not None:
                self._memory.add(found)
        return found

    def _again(
        self, meter: Meter, asked: Wish, found: KeptAnswer, routed: Routed, action: str, how: Cached,
        similarity: float | None = None,
    ) -> Earlier | None:  # fmt: skip
        """None where it is too old, or its model is not the caller's to ask."""
        age_s = max(0.0, (self._clock.now_ms() - found.kept_at_ms) / 1000)
        member = member_of(routed, found.model, meter.principal, action)
        response = decoded(found)
        if member is None or response is None or age_s >= asked.max_age_s:
            return None
        meter.target, meter.cache = member.target, Note(hit=True, age_s=int(age_s), similarity=similarity)
        regions = member.target.regions
        meter.choice = Choice(
            route=routed.route.name, reason=f"answered {int(age_s)} s ago", attempts=0,
            region=regions[0] if len(regions) == 1 else None, cached=how,
        )  # fmt: skip
        return Earlier(response, member.target)

    async def _likeness(
        self, principal: Principal, policy: Cache, asked: Wish, routed: Routed, embed: Embed
    ) -> Likeness | None:
        """None where there is nothing to compare, or nobody to embed it now: then the call goes on without."""
        said = last_said(asked.request)
        if policy.semantic is None or said is None:
            return None
        text, rest = said
        context = key_of(routed.route, principal, f"near {asked.scope}", rest)
        if context is None:
            return None
        try:
            vector = await embed(principal, policy.semantic.model, text)
        except FreeholdError:
            return None
        return Likeness(context, vector)


def last_said(request: ModelRequest) -> tuple[str, ModelRequest] | None:
    """The last text of the user's, and the request without it; None where the last message is anything else."""
    if not request.messages or request.messages[-1].role != "user":
        return None
    last = request.messages[-1]
    if not last.content or not all(isinstance(part, Text) for part in last.content):
        return None
    text = text_of(last.content)
    if not text.strip() or len(text) > TEXT_CHARS_MAX:
        return None
    return text, structs.replace(request, messages=request.messages[:-1])


class _Vector(Struct):
    embedding: list[float]


class _Vectors(Struct):
    data: list[_Vector]


_vectors: Final = msgspec.json.Decoder(_Vectors)


def vector_in(body: bytes) -> Sequence[float]:
    """Of OpenAI's answer with one vector."""
    return _vectors.decode(body).data[0].embedding
