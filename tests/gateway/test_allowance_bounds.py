"""The most that a call can use: never less than any count that a vendor could make of it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.catalog.models import ModelFacts
from freehold.core.messages import Address, Media, Message, ModelRequest, Text, Usage
from freehold.core.pricing import ModelPrice, Tier, TokenPrice, cost_pico
from freehold.gateway.bounds import (
    ADDED_TOKENS,
    CONTEXT_TOKENS,
    OUTPUT_TOKENS,
    Most,
    most_of_body,
    most_of_request,
    most_pico,
)
from freehold.gateway.passing import Envelope

FACTS = ModelFacts(name="m", context_tokens=5000, output_tokens_max=700)


def most_of(facts: ModelFacts | None = FACTS, *, more: bool = False, **fields: Any) -> Most:
    body = msgspec.json.encode({"model": "m", "messages": [], **fields})
    return most_of_body(body, Envelope(body).fields, facts, lambda: more)


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 700),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 9}, 9),
        ({"max_output_tokens": 5}, 5),
        ({"max_tokens": 5, "n": 3}, 15),
        ({"generationConfig": {"maxOutputTokens": 4, "candidateCount": 2}}, 8),
        ({"inferenceConfig": {"maxTokens": 6}}, 6),
        ({"max_tokens": "many"}, 700),
        ({"max_tokens": None}, 700),
        ({"max_tokens": -1}, 700),
    ],
)
def test_output_is_what_is_asked_for_in_any_dialect_or_all_that_the_model_gives(
    fields: dict[str, Any], tokens: int
) -> None:
    assert most_of(**fields).output_tokens == tokens


def test_of_a_model_that_nobody_knows_much_is_held_possible() -> None:
    assert most_of(None).output_tokens == OUTPUT_TOKENS
    assert most_of(None, previous_response_id="resp_1").input_tokens == CONTEXT_TOKENS


def test_input_is_bytes_but_for_what_is_no_text_or_stands_elsewhere() -> None:
    assert most_of().input_tokens == len(b'{"model":"m","messages":[]}') + ADDED_TOKENS
    assert most_of(messages=[{"content": [{"type": "text"}]}]).input_tokens < 2000
    assert most_of(messages=[{"content": [{"type": "image_url"}]}], more=True).input_tokens == 5000
    assert most_of(previous_response_id="resp_1").input_tokens == 5000
    said = Message(role="user", content=(Text("é" * 100),))
    assert (
        200 + ADDED_TOKENS
        <= most_of_request(ModelRequest(model="m", messages=(said,)), FACTS).input_tokens
        < 2000
    )
    seen = Message(
        role="user", content=(Media(kind="image", media_type="", source=Address("https://x/y.png")),)
    )
    assert most_of_request(ModelRequest(model="m", messages=(seen,)), FACTS).input_tokens == 5000


pico = st.integers(0, 10**9)
token_prices = st.builds(
    TokenPrice, pico, st.lists(st.builds(Tier, st.integers(0, 3000), pico), max_size=2).map(tuple)
)
maybe = st.none() | token_prices
prices = st.builds(
    ModelPrice,
    input=token_prices, output=token_prices, cache_read=maybe, cache_write=maybe, cache_write_1h=maybe, reasoning=maybe,
    input_audio=maybe, output_audio=maybe, pico_per_request=pico,
)  # fmt: skip


@given(price=prices, parts=st.lists(st.integers(0, 400), min_size=8, max_size=8))
def test_no_usage_within_the_bounds_costs_more_than_the_most(price: ModelPrice, parts: list[int]) -> None:
    plain, read, write, long, heard, said, thought, spoken = parts
    usage = Usage(
        input_tokens=plain + read + write + long + heard,
        output_tokens=said + thought + spoken,
        cache_read_tokens=read,
        cache_write_tokens=write,
        cache_write_1h_tokens=long,
        input_audio_tokens=heard,
        reasoning_tokens=thought,
        output_audio_tokens=spoken,
    )
    most = Most(usage.input_tokens + 1, 0, usage.output_tokens)
    assert cost_pico(usage, price) <= most_pico(price, most)
