"""What vendors' documented bodies and streams mean to the heart. Their sources: tests/golden/README.md."""

import json
from pathlib import Path

import pytest

from freehold.core.errors import Overloaded, RateLimited
from freehold.core.messages import (
    Address,
    Bytes,
    CarriedTool,
    JsonOutput,
    Media,
    Message,
    Opaque,
    Raw,
    Reasoning,
    ReasoningSetting,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
    VendorFile,
)
from freehold.core.stream import TextAdded, fold
from freehold.wires import named
from tests.wires._values import ANTHROPIC, OPENAI

GOLDEN = Path(__file__).parent.parent / "golden"
HELLO = Bytes(b"hello")


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def answer_of(name: str, provider: str = "p"):
    """The folded stream; the same for the whole file, byte by byte, and with other line ends."""
    wire = named(name.partition("/")[0])
    data = golden(name)
    answers = []
    for form in (data, data.replace(b"\n", b"\r\n"), data.replace(b"\n", b"\r")):
        for size in (len(form), 7, 1):
            decoder = wire.stream_decoder(provider=provider)
            events = [
                event for at in range(0, len(form), size) for event in decoder.feed(form[at : at + size])
            ]
            answers.append(fold([*events, *decoder.end()]))
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


def test_openai_tools():
    body = golden("openai_chat/request_tools.json")
    request = named(OPENAI).decode_request(body)
    assert request.instructions == (
        Text("You keep the stock.", None, {OPENAI: {"message.role": Raw(b'"developer"')}}),
    )
    assert request.messages == (
        Message("user", (Text("Is SKU-4482 in Shanghai?"),)),
        Message(
            "assistant", (ToolCall("call_a", "stock", '{"sku":"4482"}'), ToolCall("call_b", "now", "{}"))
        ),
        Message("tool", (ToolResult("call_a", (Text("0"),)), ToolResult("call_b", (Text("noon"),)))),
    )
    assert [tool.name for tool in request.tools] == ["stock", "now"]
    assert request.tools[0].strict
    assert request.tool_choice == ToolChoice("named", "stock", parallel=False)
    assert request.tokens_max == 300
    assert request.reasoning == ReasoningSetting(effort="low")
    assert isinstance(request.output, JsonOutput)
    assert (request.output.name, request.output.strict) == ("count", True)
    assert request.stop == ("END",)
    assert sorted(request.extra[OPENAI]) == ["metadata", "store"]


def test_openai_media():
    (message,) = named(OPENAI).decode_request(golden("openai_chat/request_vision.json")).messages
    assert message == Message(
        "user",
        (
            Text("What is this?"),
            Media("image", "", Address("https://example.com/box.png"), detail="high"),
            Media("image", "image/png", HELLO),
            Media("audio", "audio/wav", HELLO),
            Media("document", "application/pdf", HELLO, "manifest.pdf"),
            Media("document", "", VendorFile(OPENAI, "file-7")),
        ),
        "Ada",
    )


def test_openai_answer():
    answer = named(OPENAI).decode_response(golden("openai_chat/response_tools.json"), provider="p")
    assert answer.content == (ToolCall("call_a", "stock", '{"sku":"4482"}'),)
    assert answer.stop_reason == "tool_use"
    assert answer.usage == Usage(input_tokens=82, output_tokens=17, cache_read_tokens=64, reasoning_tokens=9)
    assert sorted(answer.extra[OPENAI]) == ["created", "service_tier", "system_fingerprint"]


@pytest.mark.parametrize(
    "name",
    ["openai_chat/request_tools.json", "openai_chat/request_vision.json", "anthropic_messages/request.json"],
)
def test_a_request_comes_out_of_its_own_wire_as_it_came_in(name):
    wire = named(name.partition("/")[0])
    request = wire.decode_request(golden(name))
    assert wire.decode_request(wire.encode_request(request, provider="p")) == request


def test_openai_stream():
    answer = answer_of("openai_chat/stream_text.sse")
    assert answer.text() == "None in 上海."
    assert (answer.id, answer.model, answer.stop_reason) == ("chatcmpl-9", "gpt-6.1-terra", "end_turn")
    assert answer.usage == Usage(input_tokens=20, output_tokens=4)
    assert sorted(answer.extra[OPENAI]) == ["created", "service_tier", "system_fingerprint"]


def test_openai_stream_of_parallel_calls():
    answer = answer_of("openai_chat/stream_tools.sse")
    assert answer.content == (ToolCall("call_a", "stock", '{"sku":"4482"}'), ToolCall("call_b", "now", "{}"))
    assert answer.stop_reason == "tool_use"


def test_deepseek_thinks_in_reasoning_content():
    answer = answer_of("openai_chat/stream_deepseek.sse", "deepseek")
    seal = Opaque(OPENAI, "deepseek", "deepseek-flash", "", "reasoning_content")
    assert answer.content == (Reasoning("Let me see.", seal), Text("Twelve."))
    assert answer.usage == Usage(input_tokens=30, output_tokens=12, cache_read_tokens=16, reasoning_tokens=6)


def test_openrouter_seals_its_thoughts_in_reasoning_details():
    answer = answer_of("openai_chat/stream_openrouter.sse", "openrouter")
    thought, text = answer.content
    assert text == Text("Yes.")
    assert isinstance(thought, Reasoning)
    assert thought.text == "Hm, so"
    assert thought.opaque is not None
    details = [
        {
            "type": "reasoning.text",
            "text": "Hm, so",
            "format": "anthropic-claude-v1",
            "index": 0,
            "signature": "c2VhbA==",
        }
    ]
    assert json.loads(thought.opaque.data) == details
    assert answer.extra[OPENAI]["provider"] == Raw(b'"Anthropic"')


def test_openrouter_says_an_error_in_the_middle_of_a_stream():
    decoder = named(OPENAI).stream_decoder(provider="openrouter")
    data = golden("openai_chat/stream_openrouter_error.sse")
    first = data.index(b"data: ", 10)
    assert any(isinstance(event, TextAdded) for event in decoder.feed(data[:first]))
    with pytest.raises(RateLimited):
        decoder.feed(data[first:])


def test_azure_begins_with_its_filter_and_may_stop_by_it():
    answer = answer_of("openai_chat/stream_azure.sse")
    assert (answer.id, answer.text(), answer.stop_reason) == ("chatcmpl-7", "I can't", "refusal")
    assert "prompt_filter_results" in answer.extra[OPENAI]


def test_gemini_tells_calls_whole_all_with_the_same_index_and_seals_them():
    answer = answer_of("openai_chat/stream_gemini.sse", "google")
    seal = Opaque(
        OPENAI, "google", "gemini-3.8-flash", '{"google":{"thought_signature":"c2ln"}}', "extra_content"
    )
    assert answer.content == (ToolCall("f-1", "stock", '{"sku":"4482"}', seal), ToolCall("f-2", "now", "{}"))
    assert answer.stop_reason == "tool_use"


def test_anthropic_request():
    request = named(ANTHROPIC).decode_request(golden("anthropic_messages/request.json"))
    assert request.instructions == (Text("You keep the stock.", "1h"),)
    asked, thought, results, asked_more = request.messages
    assert asked == Message("user", (Text("Is SKU-4482 in Shanghai?"),))
    assert thought.content == (
        Reasoning("I should look.", Opaque(ANTHROPIC, "", "", "EqQB")),
        Reasoning("", Opaque(ANTHROPIC, "", "", "EmwK", "redacted_thinking")),
        Text("I'll look."),
        ToolCall("toolu_01", "stock", '{\n            "sku": "4482",\n            "at": "SHA"\n          }'),
        ToolCall("toolu_02", "now", "{}"),
    )
    assert results == Message(
        "tool",
        (
            ToolResult("toolu_01", (Text("0"), Media("image", "image/png", HELLO)), cache="5m"),
            ToolResult("toolu_02", (Text("no clock"),), failed=True),
        ),
    )
    assert [part.kind for part in asked_more.content if isinstance(part, Media)] == ["document", "document"]
    stock, search = request.tools
    assert (stock.strict, stock.cache) == (True, "5m")
    assert isinstance(search, CarriedTool)
    assert request.tool_choice == ToolChoice("required", parallel=False)
    assert request.reasoning == ReasoningSetting(effort="medium")
    assert (request.tokens_max, request.stop, request.user, request.stream) == (1024, ("END",), "ada", True)
    assert sorted(request.extra[ANTHROPIC]) == ["context_management", "thinking"]


def test_anthropic_counts_all_input():
    answer = named(ANTHROPIC).decode_response(
        golden("anthropic_messages/response_thinking.json"), provider="p"
    )
    assert answer.usage == Usage(
        input_tokens=1310,
        output_tokens=50,
        cache_read_tokens=1000,
        cache_write_tokens=100,
        cache_write_1h_tokens=200,
        reasoning_tokens=31,
    )
    assert answer.content[0] == Reasoning("Hm.", Opaque(ANTHROPIC, "p", "claude-sonnet-5-5", "EqQB"))
    assert "citations" in answer.content[1].extra[ANTHROPIC]


def test_anthropic_stream_of_calls():
    answer = answer_of("anthropic_messages/stream_tools.sse")
    assert answer.content == (
        Text("Let me look in 上海."),
        ToolCall("toolu_01", "stock", '{"sku": "4482"}'),
        ToolCall("toolu_02", "now", "{}"),
    )
    assert answer.usage == Usage(input_tokens=25, output_tokens=89)


def test_anthropic_stream_of_thoughts():
    answer = answer_of("anthropic_messages/stream_thinking.sse", "anthropic")
    assert answer.content == (
        Reasoning("One by one.", Opaque(ANTHROPIC, "anthropic", "claude-sonnet-5-5", "EqQB")),
        Reasoning("", Opaque(ANTHROPIC, "anthropic", "claude-sonnet-5-5", "EmwK", "redacted_thinking")),
        Text("27"),
    )
    assert answer.usage.reasoning_tokens == 33


def test_anthropic_searches_by_itself_and_cites():
    answer = answer_of("anthropic_messages/stream_web_search.sse")
    asked, found, text = answer.content
    assert (asked.type, json.loads(bytes(asked.block))["input"]) == ("server_tool_use", {"query": "ports"})
    assert found.type == "web_search_tool_result"
    assert json.loads(bytes(text.extra[ANTHROPIC]["citations"]))[0]["cited_text"] == "closed"
    assert answer.stop_reason == "pause"
    assert answer.usage == Usage(input_tokens=120, output_tokens=50, cache_read_tokens=20)
    assert answer.extra[ANTHROPIC]["usage.server_tool_use"] == Raw(b'{"web_search_requests": 1}')


def test_anthropic_is_overloaded_in_the_middle_of_a_stream():
    with pytest.raises(Overloaded):
        named(ANTHROPIC).stream_decoder(provider="p").feed(golden("anthropic_messages/stream_overloaded.sse"))
