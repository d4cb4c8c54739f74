"""What is asked of a model that turns texts into vectors, and what it answers, in words of no vendor."""

from typing import Final, Literal, TypeAlias

from msgspec import Struct

from freehold.core.messages import Extra, Usage

EmbeddingTask: TypeAlias = Literal[
    "search_query",
    "search_document",
    "similarity",
    "classification",
    "clustering",
    "question_answering",
    "fact_verification",
    "code_query",
]
"""What the vectors are for, as vendors that ask have it: some models make another vector of a question than of what answers it."""

SEARCHES: Final[frozenset[EmbeddingTask]] = frozenset({"search_query", "search_document"})
"""Towards a model that cannot be told, these two are left out: it has one vector for both, and it is the one that was asked for.

Some vendors' clients must say one of them.
"""


class EmbeddingRequest(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One vector for each input. An input is a text, or tokens of the model's own. `model` is what the caller wrote.

    `task` is of all inputs. A wire that has no word for a task refuses it, apart from `SEARCHES`: another vector would come than was
    asked for.
    """

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    task: EmbeddingTask | None = None
    user: str | None = None
    extra: Extra = {}


class EmbeddingResponse(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`vectors` are in the inputs' order, each as little-endian 32-bit floats. `model` is what the provider says answered."""

    model: str
    vectors: tuple[bytes, ...]
    usage: Usage = Usage()
