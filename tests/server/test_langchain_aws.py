"""LangChain's classes for Bedrock, unmodified, against our door: what its users do with a model, on models of other vendors."""

import asyncio
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from tests.gateway import _vendors as vendors
from tests.server._world import World
from tests.server.test_embeddings import answer

pytestmark = pytest.mark.slow

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
STOCK = {
    "title": "stock",
    "description": "How many are left.",
    "type": "object",
    "properties": {"sku": {"type": "string"}},
    "required": ["sku"],
}
CLAUDE, GPT = "anthropic/claude-sonnet-4-5", "openai/gpt-4o"
CALLED = msgspec.json.encode({
    **msgspec.json.decode(vendors.ANTHROPIC_TEXT),
    "content": [{"type": "tool_use", "id": "toolu_1", "name": "stock", "input": {"sku": "A1"}}],
    "stop_reason": "tool_use",
})
chats = pytest.mark.parametrize("kind", ["ChatBedrockConverse", "ChatBedrock"])


class LangChain(Struct):
    """The library, which takes seconds to import, and how to reach our door with it."""

    aws: Any
    messages: Any
    settings: dict[str, str]

    def chat(self, kind: str, model: str, **more: Any) -> Any:
        return self._opened(kind, model=model, provider="anthropic", disable_streaming=False, **more)

    def embeddings(self, model: str, **more: Any) -> Any:
        return self._opened("BedrockEmbeddings", model_id=model, **more)

    def _opened(self, kind: str, **more: Any) -> Any:
        with _quiet():
            return getattr(self.aws, kind)(**self.settings, **more)


def _quiet() -> "warnings.catch_warnings[None]":
    """The libraries warn of each other, and of what Python will be."""
    return warnings.catch_warnings(action="ignore")


@pytest.fixture(scope="module")
async def langchain(shared: World) -> LangChain:
    with _quiet():
        import langchain_aws
        from langchain_core import messages
    made = await shared.json("POST", "/v1/keys", {"name": "langchain"})
    settings = {
        "endpoint_url": shared.url,
        "region_name": "eu-central-1",
        "aws_access_key_id": made["access_key_id"],
        "aws_secret_access_key": made["secret_access_key"],
    }
    return LangChain(langchain_aws, SimpleNamespace(**vars(messages)), settings)


async def run(ask: Callable[[], Any]) -> Any:
    """These classes block."""

    def quietly() -> Any:
        with _quiet():
            return ask()

    return await asyncio.to_thread(quietly)


@chats
@pytest.mark.parametrize("model", [CLAUDE, GPT])
async def test_an_answer_comes_with_its_usage(
    shared: World, langchain: LangChain, kind: str, model: str
) -> None:
    shared.script("openai", vendors.reply(vendors.OPENAI_TEXT))
    shared.script("anthropic", vendors.reply(vendors.ANTHROPIC_TEXT))
    said = await run(lambda: langchain.chat(kind, model).invoke([("system", "Be brief."), ("human", "Hi")]))
    assert said.text == "Hello there"
    usage = said.usage_metadata
    assert usage["input_tokens"] > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@chats
@pytest.mark.parametrize("model", [CLAUDE, GPT])
async def test_a_stream_adds_up(shared: World, langchain: LangChain, kind: str, model: str) -> None:
    shared.script("openai", vendors.stream(*vendors.OPENAI_STREAM))
    shared.script("anthropic", vendors.stream(*vendors.ANTHROPIC_STREAM))
    chunks = await run(lambda: list(langchain.chat(kind, model).stream("Hi")))
    whole = sum(chunks[1:], chunks[0])
    assert len(chunks) > 2
    assert whole.text == "Hello there"
    assert whole.usage_metadata["output_tokens"] > 0
    assert whole.usage_metadata["input_tokens"] > 0


@chats
async def test_a_tool_is_called_and_its_result_goes_back(
    shared: World, langchain: LangChain, kind: str
) -> None:
    vendor = shared.script("anthropic", vendors.reply(CALLED), vendors.reply(vendors.ANTHROPIC_TEXT))
    messages = langchain.messages
    chat = langchain.chat(kind, CLAUDE).bind_tools([STOCK])
    asked = [messages.HumanMessage("How many A1?")]
    said = await run(lambda: chat.invoke(asked))
    (call,) = said.tool_calls
    assert (call["name"], call["args"]) == ("stock", {"sku": "A1"})
    told = [*asked, said, messages.ToolMessage("12", tool_call_id=call["id"])]
    assert (await run(lambda: chat.invoke(told))).text == "Hello there"
    first, second = (one.json for one in vendor.asked)
    assert first["tools"][0]["input_schema"]["required"] == ["sku"]
    assert [one["role"] for one in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][2]["content"][0]["tool_use_id"] == "toolu_1"


@chats
async def test_tools_are_called_in_a_stream(shared: World, langchain: LangChain, kind: str) -> None:
    shared.script("openai", vendors.stream(*vendors.OPENAI_TOOLS_STREAM))
    chunks = await run(lambda: list(langchain.chat(kind, GPT).bind_tools([STOCK]).stream("How many?")))
    whole = sum(chunks[1:], chunks[0])
    assert whole.tool_calls
    assert all(call["name"] and isinstance(call["args"], dict) for call in whole.tool_calls)


@chats
async def test_an_answer_takes_a_wanted_form(shared: World, langchain: LangChain, kind: str) -> None:
    vendor = shared.script("anthropic", vendors.reply(CALLED))
    chat = langchain.chat(kind, CLAUDE).with_structured_output(STOCK)
    assert await run(lambda: chat.invoke("Name a product.")) == {"sku": "A1"}
    assert vendor.asked[0].json["tools"][0]["name"] == "stock"


@chats
@pytest.mark.parametrize("model", [CLAUDE, GPT])
async def test_an_image_goes_along(shared: World, langchain: LangChain, kind: str, model: str) -> None:
    asked = shared.script("openai", vendors.reply(vendors.OPENAI_TEXT))
    if model == CLAUDE:
        asked = shared.script("anthropic", vendors.reply(vendors.ANTHROPIC_TEXT))
    image = {"type": "image", "base64": PNG, "mime_type": "image/png"}
    words = [{"type": "text", "text": "What is it?"}, image]
    question = langchain.messages.HumanMessage(words)
    assert (await run(lambda: langchain.chat(kind, model).invoke([question]))).text == "Hello there"
    assert PNG in asked.asked[0].body.decode()


@pytest.mark.parametrize("provider", ["amazon", "cohere"])
async def test_texts_become_vectors(shared: World, langchain: LangChain, provider: str) -> None:
    shared.script("openai", vendors.reply(answer([0.5, -1])))
    embeddings = langchain.embeddings("openai/text-embedding-3-small", provider=provider)
    assert await run(lambda: embeddings.embed_query("Hi")) == [0.5, -1]
    assert await run(lambda: embeddings.embed_documents(["Hi"])) == [[0.5, -1]]


@chats
async def test_a_refusal_says_why(shared: World, langchain: LangChain, kind: str) -> None:
    shared.script("openai", vendors.reply(b'{"error":{"message":"No such thing"}}', status=400))
    with pytest.raises(Exception, match=r"ValidationException.*No such thing"):
        await run(lambda: langchain.chat(kind, GPT).invoke("Hi"))
