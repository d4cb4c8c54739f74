"""Providers: the list of models that an address offers (`GET /models`), bounded and kept for a while.

The shape is OpenAI's, which Anthropic and every compatible server share: `{"data": [{"id": ...}]}`. What servers add about
the context's length is taken where it is found; nobody agrees on its name.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from freehold.core.errors import FreeholdError, Unavailable
from freehold.core.ports import ModelInfo
from freehold.providers._http import HttpPool, Target, Timeouts

LIST_BYTES_MAX: Final = 8 * 1024 * 1024
MODELS_MAX: Final = 10_000
KEPT_S: Final = 300.0
TIMEOUTS: Final = Timeouts(queue_s=5.0, connect_s=5.0, first_byte_s=10.0, idle_s=10.0, total_s=15.0)


class _Model(Struct):
    id: str
    display_name: str = ""
    name: str = ""
    context_length: int | None = None
    context_window: int | None = None
    max_context_length: int | None = None
    max_model_len: int | None = None
    max_input_tokens: int | None = None


class _List(Struct):
    data: list[_Model]


ReadList: TypeAlias = Callable[[str, bytes], Sequence[ModelInfo]]
"""The provider's name and its list to what it offers. Raises msgspec.DecodeError, UnicodeDecodeError."""


class ModelList:
    """`read` is for vendors with a shape of their own."""

    __slots__ = ("_kept", "_kept_until", "_path", "_pool", "_provider", "_read", "_target")

    def __init__(
        self, provider: str, pool: HttpPool, target: Target, path: str, *, read: ReadList | None = None
    ) -> None:
        self._provider = provider
        self._pool = pool
        self._target = target
        self._path = path
        self._read = read or listed
        self._kept: Sequence[ModelInfo] = ()
        self._kept_until = 0.0

    async def get(self) -> Sequence[ModelInfo]:
        """Raises Unavailable, TimedOut, TooLarge. Empty where the address has no list."""
        now = asyncio.get_running_loop().time()
        if self._path and now >= self._kept_until:
            self._kept = await self._fetch()
            self._kept_until = now + KEPT_S
        return self._kept

    async def _fetch(self) -> Sequence[ModelInfo]:
        reply = await self._pool.request(self._target, path=self._path, method="GET", timeouts=TIMEOUTS)
        async with reply:
            body = await reply.read(LIST_BYTES_MAX)
        if reply.status != 200:
            raise Unavailable(
                f"{self._provider} did not list its models (status {reply.status})",
                detail=body[:500].decode("utf-8", "replace"),
            )
        try:
            return self._read(self._provider, body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            broken: FreeholdError = Unavailable(
                f"{self._provider} answered with something that is no list of models", detail=str(error)
            )
            raise broken from error


def listed(provider: str, body: bytes) -> Sequence[ModelInfo]:
    """In OpenAI's shape. Raises msgspec.DecodeError, UnicodeDecodeError."""
    if body.lstrip().startswith(b"["):  # Together answers with the bare list.
        models = msgspec.json.decode(body, type=list[_Model])
    else:
        models = msgspec.json.decode(body, type=_List).data
    return [_info(provider, model) for model in models[:MODELS_MAX]]


def _info(provider: str, model: _Model) -> ModelInfo:
    return ModelInfo(
        provider=provider,
        name=model.id.removeprefix("models/"),  # Google's resource names.
        display_name=model.display_name or model.name,
        context_tokens=model.context_length
        or model.context_window
        or model.max_context_length
        or model.max_model_len
        or model.max_input_tokens,
    )
