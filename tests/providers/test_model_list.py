"""Lists of models as servers really give them, and those that are none."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from freehold.core.errors import TooLarge, Unavailable
from freehold.providers import _model_list
from freehold.providers._http import HttpPool, Target
from freehold.providers._model_list import ModelList


def answer(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


@pytest.fixture
async def names_in(scripted: Any) -> Callable[..., Awaitable[list[tuple[str, int | None]]]]:
    async def names(body: bytes, status: int = 200) -> list[tuple[str, int | None]]:
        async with scripted(answer(body, status)) as server, HttpPool() as pool:
            models = await ModelList("own", pool, Target(server.url), "/models").get()
            return [(info.name, info.context_tokens) for info in models]

    return names


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"object":"list","data":[{"id":"gpt-4o","owned_by":"openai"}]}', [("gpt-4o", None)]),
        (b'[{"id":"together/x","context_length":8192}]', [("together/x", 8192)]),
        (b'{"data":[{"id":"models/gemini-2.5-flash"}]}', [("gemini-2.5-flash", None)]),
        (b'{"data":[{"id":"qwen","max_model_len":32768}]}', [("qwen", 32768)]),
        (
            b'{"data":[{"id":"claude-x","display_name":"Claude X","type":"model"}],"has_more":false}',
            [("claude-x", None)],
        ),
        (b'{"data":[]}', []),
    ],
)
async def test_every_shape_of_list_is_read(
    names_in: Any, body: bytes, names: list[tuple[str, int | None]]
) -> None:
    assert await names_in(body) == names


@pytest.mark.parametrize("body", [b"<html>", b"", b'{"models":[]}', b'{"data":[{"name":"x"}]}', b"\xff"])
async def test_what_is_no_list_is_unavailable(names_in: Any, body: bytes) -> None:
    with pytest.raises(Unavailable, match="no list of models"):
        await names_in(body)


async def test_a_refused_list_says_the_status(names_in: Any) -> None:
    with pytest.raises(Unavailable, match="401"):
        await names_in(b"{}", 401)


async def test_a_list_is_bounded(names_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_model_list, "MODELS_MAX", 2)
    assert len(await names_in(b'{"data":[{"id":"a"},{"id":"b"},{"id":"c"}]}')) == 2
    monkeypatch.setattr(_model_list, "LIST_BYTES_MAX", 10)
    with pytest.raises(TooLarge):
        await names_in(b'{"data":[{"id":"a"}]}')


async def test_an_address_without_a_list_is_not_asked() -> None:
    async with HttpPool() as pool:
        assert await ModelList("own", pool, Target("http://127.0.0.1:1"), "").get() == ()
