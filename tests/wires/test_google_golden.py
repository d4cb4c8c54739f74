"""What Google's documented bodies and streams mean to the heart. Their sources: tests/golden/README.md."""

import json

import pytest

from freehold.core.errors import (
    BrokenOff,
    ContentRefused,
    ContextTooLong,
    Overloaded,
    RateLimited,
    Unauthenticated,
)
from freehold.core.messages import (
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
from freehold.core.stream import TextAdded
from freehold.wires import named
from tests.wires._google_values import GOOGLE
from tests.wires.test_golden import answer_of, golden

WIRE = named(GOOGLE)
MODEL = "gemini-3.8-flash"


def test_a_request_with_tools():
    request = WIRE.decode_request(golden("google_generate/request_tools.json"))
    assert request.instructions == (Text("You keep the stock."),)
    assert request.messages == (
        Message("user", (Text("Is SKU-4482 in Shanghai?"),)),
        Message(
            "assistant",
            (
                Reasoning("I should look.", Opaque(GOOGLE, "", "", "", "thought")),
                ToolCall("call_1", "stock", '{"sku": "4482"}', Opaque(GOOGLE, "", "", "c2lnbmF0dXJl")),
                ToolCall("f-2", "now", "{}"),
            ),
        ),
        Message(
            "tool",
            (
                ToolResult("call_1", (Text('{"SHA": 0, "HAM": 12}'),)),
                ToolResult("f-2", (Text("no clock"),), failed=True),
            ),
        ),
    )
    stock, now, search = request.tools
    assert json.loads(bytes(stock.parameters)) == {
        "type": "object",
        "properties": {
            "sku": {"type": "string", "maxLength": 8},
            "at": {"type": ["string", "null"], "enum": ["SHA", "HAM", None]},
        },
        "required": ["sku"],
    }
    assert list(json.loads(bytes(stock.parameters))["properties"]) == ["sku", "at"]
    assert now.parameters == Raw(b'{"type":"object","properties":{}}')
    assert isinstance(search, CarriedTool)
    assert search.type == "googleSearch"
    assert request.tool_choice == ToolChoice("named", "stock")
    assert request.output == JsonOutput(Raw(b'{"type":"integer"}'))
    assert request.reasoning == ReasoningSetting(effort="low")
    assert (request.temperature, request.top_k, request.tokens_max, request.stop) == (0.5, 40, 300, ("END",))
    assert sorted(request.extra[GOOGLE]) == ["cachedContent", "safetySettings.permissive"]


def test_a_request_as_the_vendor_writes_it_for_curl():
    request = WIRE.decode_request(golden("google_generate/request_curl.json"))
    (message,) = request.messages
    assert request.instructions == (Text("You are a cat."),)
    offset = {GOOGLE: {"videoMetadata": Raw(b'{"start_offset": "10s"}')}}
    file = VendorFile(GOOGLE, "https://generativelanguage.googleapis.com/v1beta/files/abc")
    assert message.content == (
        Text("What is this?"),
        Media("image", "image/png", Bytes(b"hello")),
        Media("video", "video/mp4", file, extra=offset),
    )
    assert request.tokens_max == 10


@pytest.mark.parametrize("name", ["request_tools.json", "request_curl.json"])
def test_a_request_comes_out_of_its_own_wire_as_it_came_in(name):
    request = WIRE.decode_request(golden(f"google_generate/{name}"))
    again = WIRE.decode_request(WIRE.encode_request(request, provider="p"))
    assert again.messages[-1] == request.messages[-1]
    assert (again.tools, again.output, again.reasoning, again.extra) == (
        request.tools,
        request.output,
        request.reasoning,
        request.extra,
    )


def test_an_answer_counts_what_its_tools_read_and_what_it_thought():
    answer = WIRE.decode_response(golden("google_generate/response_tools.json"), provider="p")
    seal = Opaque(GOOGLE, "p", MODEL, "c2lnbmF0dXJl")
    assert answer.content == (
        Reasoning("I should look.", Opaque(GOOGLE, "p", MODEL, "", "thought")),
        ToolCall("", "stock", '{"sku": "4482"}', seal),
    )
    assert answer.stop_reason == "tool_use"
    assert answer.usage == Usage(
        input_tokens=87, output_tokens=26, cache_read_tokens=64, reasoning_tokens=9, input_audio_tokens=2
    )
    assert list(answer.extra[GOOGLE]) == ["candidate.safetyRatings"]


def test_a_blocked_prompt_is_refused_whole_and_streamed():
    body = golden("google_generate/response_blocked.json")
    with pytest.raises(ContentRefused, match="PROHIBITED_CONTENT"):
        WIRE.decode_response(body, provider="p")
    with pytest.raises(ContentRefused, match="PROHIBITED_CONTENT"):
        WIRE.stream_decoder(provider="p").feed(b"data: " + json.dumps(json.loads(body)).encode() + b"\n\n")


def test_a_stream_of_thoughts_and_words():
    answer = answer_of("google_generate/stream_thinking.sse")
    assert answer.content == (
        Reasoning("One by one.", Opaque(GOOGLE, "p", MODEL, "", "thought")),
        Text("None in 上海."),
        Reasoning("", Opaque(GOOGLE, "p", MODEL, "c2lnbmF0dXJl")),
    )
    assert answer.usage == Usage(input_tokens=20, output_tokens=17, reasoning_tokens=13)
    assert (answer.id, answer.model, answer.stop_reason) == ("r-1", MODEL, "end_turn")
    assert list(answer.extra[GOOGLE]) == ["candidate.groundingMetadata"]


def test_a_stream_of_calls():
    answer = answer_of("google_generate/stream_tools.sse")
    assert answer.content == (
        ToolCall("", "stock", '{"sku": "4482"}', Opaque(GOOGLE, "p", MODEL, "c2lnbmF0dXJl")),
        ToolCall("f-2", "now", "{}"),
    )
    assert answer.stop_reason == "tool_use"


@pytest.mark.parametrize("size", [10_000, 7, 1])
def test_an_error_in_the_middle_comes_as_bare_json(size):
    data = golden("google_generate/stream_overloaded.sse")
    decoder = WIRE.stream_decoder(provider="p")
    events = [event for at in range(0, len(data), size) for event in decoder.feed(data[at : at + size])]
    assert any(isinstance(event, TextAdded) for event in events)
    with pytest.raises(Overloaded):
        decoder.end()


def test_an_error_may_come_as_an_event_too():
    with pytest.raises(Overloaded):
        WIRE.stream_decoder(provider="p").feed(
            b'data: {"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}\n\n'
        )


def test_a_stream_without_a_reason_to_finish_was_cut():
    data = golden("google_generate/stream_thinking.sse")
    decoder = WIRE.stream_decoder(provider="p")
    decoder.feed(data[: data.rindex(b"data: ")])
    with pytest.raises(BrokenOff):
        decoder.end()


def test_a_call_that_the_model_garbled_is_no_answer():
    body = {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "print(stock("}]}
    with pytest.raises(BrokenOff, match=r"MALFORMED_FUNCTION_CALL\): print"):
        WIRE.decode_response(json.dumps(body).encode(), provider="p")


def test_refusals_name_their_causes():
    quota = WIRE.decode_error(429, {}, golden("google_generate/error_quota.json"))
    assert isinstance(quota, RateLimited)
    assert quota.retry_after_s == 34.07
    assert "quota" not in quota.message
    assert isinstance(WIRE.decode_error(400, {}, golden("google_generate/error_key.json")), Unauthenticated)
    long = {
        "error": {
            "code": 400,
            "message": "The input token count (9) exceeds the maximum number of tokens allowed (8).",
        }
    }
    assert isinstance(WIRE.decode_error(400, {}, json.dumps([long]).encode()), ContextTooLong)
    wrong = {
        "error": {"message": "bad", "details": [{"fieldViolations": [{"field": "generation_config.top_k"}]}]}
    }
    assert WIRE.decode_error(400, {}, json.dumps(wrong).encode()).field == "generation_config.top_k"


def test_errors_survive_the_way_to_a_client():
    told = WIRE.encode_error(RateLimited("slow down", retry_after_s=2.5, field="contents"), "req_1")
    assert (told.status, told.headers["retry-after"]) == (429, "3")
    read = WIRE.decode_error(429, {}, told.body)
    assert isinstance(read, RateLimited)
    assert (read.retry_after_s, read.field) == (2.5, "contents")
    long = WIRE.encode_error(ContextTooLong("too much"), "req_1")
    assert isinstance(WIRE.decode_error(long.status, {}, long.body), ContextTooLong)
