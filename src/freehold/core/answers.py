"""Answers that are kept to be given again: what of them is stored, and the port of the store.

Not here: what may be kept and for how long (gateway/caching.py).
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct


class KeptAnswer(Struct, frozen=True, kw_only=True):
    """An answer that may be given again. `body` is a ModelResponse as JSON, `model` (`provider/name`) whose it is. Times in Unix
    milliseconds.
    """

    tenant: str
    key: bytes
    model: str
    body: bytes
    kept_at_ms: int
    expires_at_ms: int


class Likeness(Struct, frozen=True):
    """By what an answer is found for a request that means the same: `context` is the digest of all but the last text, `vector` that text's."""

    context: bytes
    vector: Sequence[float]


class KeptAnswers(Protocol):
    """Answers for all processes. A cache: what is lost is asked again."""

    def add(self, answer: KeptAnswer, likeness: Likeness | None = None) -> None:
        """Written behind, in batches; left out where too many wait. Raises nothing."""
        ...

    async def get(self, tenant: str, key: bytes) -> KeptAnswer | None:
        """None too where the database is away, or slow."""
        ...

    async def near(
        self, tenant: str, likeness: Likeness, *, similarity_min: float
    ) -> tuple[KeptAnswer, float] | None:
        """The most similar, with its similarity (cosine). None as in `get`."""
        ...

    async def finds_likeness(self) -> bool:
        """Whether the database has vectors (pgvector)."""
        ...
