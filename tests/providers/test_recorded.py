"""Recorded answers: word for word, in their order, and nothing that was not recorded."""

from pathlib import Path

import pytest
from msgspec import structs

from freehold.catalog.catalog import ProviderRow
from freehold.core.errors import BadRequest, BrokenOff, NotFound, RateLimited, Unsupported
from freehold.core.messages import (
    Bytes,
    Carried,
    Media,
    Message,
    ModelRequest,
    ModelResponse,
    Opaque,
    Reasoning,
    Text,
    ToolCall,
    Usage,
    raw,
)
from freehold.core.ports import Provider
from freehold.core.stream import StreamEvent, fold, unfold
from freehold.providers._http import HttpPool
from freehold.providers.recorded import create, hash_of, line

QUESTION = ModelRequest(model="recorded", messages=(Message("user", (Text("Why?"),)),))
OTHER = structs.replace(QUESTION, messages=(Message("user", (Text("How?"),)),))


def said(text: str) -> ModelResponse:
    return ModelResponse(id="r", model="m", content=(Text(text),), stop_reason="end_turn", usage=Usage(3, 4))


def recorded(tmp_path: Path, *lines: bytes) -> Provider:
    path = tmp_path / "recording.jsonl"
    path.write_bytes(b"".join(lines))
    return create(
        ProviderRow(name="rec", type="recorded", base_url=f"file:{path}"), None, headers={}, pool=HttpPool()
    )


async def ask(provider: Provider, request: ModelRequest) -> list[StreamEvent]:
    async with provider.call(request) as events:
        return [event async for event in events]


async def test_every_kind_of_part_is_played_back_as_it_was(tmp_path: Path) -> None:
    seal = Opaque(wire="w", provider="p", model="m", data="sealed")
    response = ModelResponse(
        id="r",
        model="m",
        content=(
            Reasoning("hm", seal),
            Text("Because."),
            ToolCall("t1", "stock", '{"sku":'),
            Media("image", "image/png", Bytes(b"\x00\xff")),
            Carried("w", "odd", raw({"a": [1.5]})),
        ),
        stop_reason="tool_use",
        usage=Usage(input_tokens=10, output_tokens=2, cache_read_tokens=5),
        extra={"w": {"field": raw("value")}},
    )
    provider = recorded(tmp_path, line(QUESTION, tuple(unfold(response))))
    assert not provider.is_language_model
    played = fold(await ask(provider, QUESTION))
    assert line(None, tuple(unfold(played))) == line(None, tuple(unfold(response)))


async def test_answers_to_the_same_request_come_in_their_order_and_end(tmp_path: Path) -> None:
    lines = [line(QUESTION, tuple(unfold(said(text)))) for text in ("first", "second")]
    provider = recorded(tmp_path, *lines)
    assert fold(await ask(provider, QUESTION)).text() == "first"
    assert fold(await ask(provider, QUESTION)).text() == "second"
    with pytest.raises(NotFound, match="all its answers to this request were played"):
        await ask(provider, QUESTION)


async def test_a_request_that_was_not_recorded_is_an_error_and_not_another_ones_answer(
    tmp_path: Path,
) -> None:
    provider = recorded(tmp_path, line(QUESTION, tuple(unfold(said("why")))))
    with pytest.raises(NotFound, match=hash_of(OTHER)[:12]):
        await ask(provider, OTHER)


async def test_lines_without_a_request_answer_whatever_comes_in_turn(tmp_path: Path) -> None:
    provider = recorded(tmp_path, *[line(None, tuple(unfold(said(text)))) for text in ("first", "second")])
    assert fold(await ask(provider, OTHER)).text() == "first"
    assert fold(await ask(provider, QUESTION)).text() == "second"


async def test_the_model_and_streaming_are_no_part_of_a_request(tmp_path: Path) -> None:
    provider = recorded(tmp_path, line(QUESTION, tuple(unfold(said("why")))))
    assert await ask(provider, structs.replace(QUESTION, model="another", stream=True))


async def test_a_recorded_refusal_is_raised_on_entering_and_a_break_in_the_middle(tmp_path: Path) -> None:
    events = tuple(unfold(said("half")))[:3]
    provider = recorded(
        tmp_path,
        line(None, (), RateLimited("slow down", retry_after_s=2.5)),
        line(None, events, BrokenOff("cut")),
    )
    with pytest.raises(RateLimited, match="slow down") as refused:
        await ask(provider, QUESTION)
    assert refused.value.retry_after_s == 2.5
    came = []
    with pytest.raises(BrokenOff, match="cut"):  # noqa: PT012 - it comes after the events
        async with provider.call(QUESTION) as playing:
            async for event in playing:
                came.append(event)  # noqa: PERF401 - what came before the error counts
    assert tuple(came) == events


@pytest.mark.parametrize("content", [b"not json\n", b'{"unknown":1}\n', b'{"events":[{"type":"nope"}]}\n'])
def test_a_damaged_recording_is_refused_with_the_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadRequest, match="line 2"):
        recorded(tmp_path, line(None, ()), content)


def test_a_recording_is_a_file_and_takes_no_bytes(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"absent.jsonl"):
        create(
            ProviderRow(name="rec", type="recorded", base_url="file:absent.jsonl"),
            None,
            headers={},
            pool=HttpPool(),
        )
    with pytest.raises(BadRequest, match="file:PATH"):
        create(
            ProviderRow(name="rec", type="recorded", base_url="http://x"), None, headers={}, pool=HttpPool()
        )
    with pytest.raises(Unsupported):
        recorded(tmp_path).forward(b"{}", model="", stream=False, headers={})
