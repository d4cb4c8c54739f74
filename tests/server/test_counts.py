"""Anthropic's SDK counts tokens, whoever's model it is."""

import anthropic
import pytest

from tests.gateway._vendors import reply
from tests.server._world import World

TOOLS = [
    {
        "name": "stock",
        "description": "How many there are",
        "input_schema": {"type": "object", "properties": {}},
    }
]


async def test_the_vendors_own_count_comes_through(shared: World) -> None:
    asked = shared.script("anthropic", reply(b'{"input_tokens":2095}'))
    raw = await shared.anthropic.messages.with_raw_response.count_tokens(
        model="claude-sonnet-5-5",
        messages=[{"role": "user", "content": "Hello"}],
        tools=TOOLS,
        system="Be short.",
    )  # type: ignore[call-overload]
    assert (await raw.parse()).input_tokens == 2095
    assert "x-freehold-estimated" not in raw.headers
    assert asked.asked[0].path == "/v1/messages/count_tokens"
    assert asked.asked[0].json.keys() == {"model", "messages", "tools", "system"}


async def test_an_estimate_says_that_it_is_one(shared: World) -> None:
    raw = await shared.anthropic.messages.with_raw_response.count_tokens(
        model="openai/gpt-4o", messages=[{"role": "user", "content": "Hello there, how are you today?"}]
    )
    counted = await raw.parse()
    assert 5 < counted.input_tokens < 20
    assert raw.headers["x-freehold-estimated"] == "true"
    assert counted.model_extra == {"freehold": {"estimated": True, "model": "openai/gpt-4o"}}


async def test_what_cannot_be_counted_is_refused_in_anthropics_words(shared: World) -> None:
    with pytest.raises(anthropic.NotFoundError, match="rules"):
        await shared.anthropic.messages.count_tokens(
            model="rules/nobody", messages=[{"role": "user", "content": "Hi"}]
        )
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        await shared.anthropic.messages.count_tokens(model="openai/gpt-4o", messages="Hi")  # type: ignore[arg-type]
    with pytest.raises(anthropic.AuthenticationError):
        await shared.anthropic.with_options(api_key="fh_wrong").messages.count_tokens(
            model="openai/gpt-4o", messages=[{"role": "user", "content": "Hi"}]
        )


async def test_models_tell_what_is_known_of_them(shared: World) -> None:
    ours = await shared.openai.models.retrieve("openai/gpt-4o")
    assert ours.model_extra is not None
    known = ours.model_extra["freehold"]
    assert (known["context_tokens"], known["output_tokens_max"]) == (128_000, 16_384)
    assert (known["images"], known["audio"], known["tools"]) == (True, False, True)
    assert known["price"] == {"currency": "USD", "input_per_million": "2.5", "output_per_million": "10"}
    theirs = await shared.anthropic.models.retrieve("anthropic/claude-haiku-4-5")
    assert (theirs.max_input_tokens, theirs.max_tokens) == (200_000, 64_000)
    assert theirs.model_extra is not None
    assert theirs.model_extra["freehold"]["reasoning"] is True
