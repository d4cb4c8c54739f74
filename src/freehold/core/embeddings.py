"""What is asked of a model that turns texts into vectors, and what it answers, in words of no vendor."""

from msgspec import Struct

from freehold.core.messages import Extra, Usage


class EmbeddingRequest(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One vector for each input. An input is a text, or tokens of the model's own. `model` is what the caller wrote."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    user: str | None = None
    extra: Extra = {}


class EmbeddingResponse(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`vectors` are in the inputs' order, each as little-endian 32-bit floats. `model` is what the provider says answered."""

    model: str
    vectors: tuple[bytes, ...]
    usage: Usage = Usage()
