"""OpenAI chat: what a wrong body is told, what rides along, and the ways in which vendors differ in their streams."""

import json
from typing import Any

import msgspec
import pytest

from freehold.core.errors import (
    BadRequest,
    BrokenOff,
    ContentRefused,
    ContextTooLong,
    NotFound,
    Overloaded,
    RateLimited,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from freehold.core.messages import Carried, Message, Raw, Text, ToolCall
from freehold.core.stream import fold, unfold
from freehold.wires import named

WIRE = named("openai_chat")
USER = {"role": "user", "content": "hi"}


def body(**fields):
    return json.dumps({"model": "m", "messages": [USER], **fields}).encode()


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        (b"", None, "an empty body"),
        (b'{"model": ', None, "expected JSON"),
        (b"[]", None, "expected 'object', got 'array'"),
        (b"\xff\xfe", None, "expected JSON"),
        (b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}', None, "UTF-8"),
        (json.dumps({"model": "m"}).encode(), "messages", "required, but missing"),
        (json.dumps({"messages": []}).encode(), "model", "required, but missing"),
        (body(messages={}), "messages", "expected 'array', got 'object'"),
        (body(messages=["hi"]), "messages[0]", "expected 'object', got 'str'"),
        (
            body(messages=[USER, {"role": "wizard", "content": "x"}]),
            "messages[1].role",
            "expected one of system, developer, user",
        ),
        (body(messages=[{"content": "x"}]), "messages[0].role", "required, but missing"),
        (
            body(messages=[{"role": "user", "content": 5}]),
            "messages[0].content",
            "expected 'str | array', got 'int'",
        ),
        (
            body(messages=[USER, USER, {"role": "user", "content": [{"type": "foo"}]}]),
            "messages[2].content[0].type",
            "expected one of text, image_url, input_audio, file",
        ),
        (
            body(messages=[{"role": "user", "content": [{"type": "text"}]}]),
            "messages[0].content[0].text",
            "required",
        ),
        (body(messages=[{"role": "tool", "content": "x"}]), "messages[0].tool_call_id", "required"),
        (
            body(
                messages=[
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,a"}}],
                    }
                ]
            ),
            "messages[0].content[0].image_url.url",
            "expected base64",
        ),
        (body(tools=[{"type": "function", "function": {}}]), "tools[0].function.name", "required"),
        (body(tool_choice="maybe"), "tool_choice", "expected one of auto, none, required"),
        (body(response_format={"type": "json_schema"}), "response_format.json_schema.schema", "required"),
        (body(temperature="hot"), "temperature", "expected 'float | null', got 'str'"),
        (body(stream="yes", a_new_field=1), "stream", "expected 'bool | null', got 'str'"),
    ],
)
def test_a_wrong_body_is_told_where_and_what(given, field, said):
    with pytest.raises(BadRequest) as raised:
        WIRE.decode_request(given)
    assert raised.value.field == field
    assert said in raised.value.message


def test_unknown_fields_ride_along_wherever_they_are():
    request = {
        "model": "m",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi", "x_part": 1}], "x_message": [2]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, "x_call": 3}
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "ok", "x_result": 4},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "x_function": 5}, "x_tool": 6},
            {"type": "custom", "custom": {"name": "z"}},
        ],
        "x_request": {"a": None},
    }
    decoded = WIRE.decode_request(json.dumps(request).encode())
    assert decoded.tools[1].name == "z"
    again = json.loads(WIRE.encode_request(decoded, provider="p"))
    again["tools"][0]["function"].pop("parameters")
    again["messages"][1]["content"] = ""
    assert again == request


def test_the_form_before_tools_rides_along():
    request = {
        "model": "m",
        "messages": [
            USER,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "ok"},
        ],
        "functions": [{"name": "f"}],
        "function_call": "auto",
    }
    decoded = WIRE.decode_request(json.dumps(request).encode())
    assert isinstance(decoded.messages[2].content[0], Carried)
    again = json.loads(WIRE.encode_request(decoded, provider="p"))
    again["messages"][1]["content"] = None
    assert again == request
    with pytest.raises(Unsupported, match="only openai_chat knows"):
        named("anthropic_messages").encode_request(decoded, provider="p")


def test_only_one_answer_can_be_translated():
    assert "n" not in json.loads(WIRE.encode_request(WIRE.decode_request(body(n=1)), provider="p"))
    with pytest.raises(Unsupported) as raised:
        WIRE.encode_request(WIRE.decode_request(body(n=2)), provider="p")
    assert raised.value.field == "n"


def test_a_stream_always_asks_for_usage_and_keeps_the_other_options():
    options = {"include_usage": False, "include_obfuscation": False}
    sent = json.loads(
        WIRE.encode_request(WIRE.decode_request(body(stream=True, stream_options=options)), provider="p")
    )
    assert sent["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    sent = json.loads(WIRE.encode_request(WIRE.decode_request(body(stream=False)), provider="p"))
    assert "stream_options" not in sent


def test_a_system_message_in_the_middle_stays_there():
    messages = [USER, {"role": "developer", "content": "be brief"}, USER]
    decoded = WIRE.decode_request(body(messages=messages))
    assert decoded.messages[1] == Message(
        "system", (Text("be brief"),), None, {"openai_chat": {"role": Raw(b'"developer"')}}
    )
    assert json.loads(WIRE.encode_request(decoded, provider="p"))["messages"] == messages


# ---------------------------------------------------------------------------------------------- streams


def stream(*deltas, finish="stop", done=True, **last):
    chunks = [{"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "delta": {}, "finish_reason": finish, **last}],
    })
    data = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    return data + (b"data: [DONE]\n\n" if done else b"")


def answer(data):
    decoder = WIRE.stream_decoder(provider="p")
    return fold([*decoder.feed(data), *decoder.end()])


def call(**fields):
    return {"tool_calls": [fields]}


@pytest.mark.parametrize(
    "deltas",
    [
        [
            call(index=0, id="a", function={"name": "f", "arguments": "{"}),
            call(index=0, function={"arguments": "}"}),
            call(index=1, id="b", function={"name": "g", "arguments": "{}"}),
        ],
        [
            call(id="a", function={"name": "f", "arguments": "{}"}),
            call(id="b", function={"name": "g", "arguments": "{}"}),
        ],
        [
            call(index=0, id="a", function={"name": "f", "arguments": "{}"}),
            call(index=0, id="b", function={"name": "g", "arguments": "{}"}),
        ],
        [
            call(index=0, id="a", function={"name": "f", "arguments": "{"}),
            call(index=0, id="a", function={"name": "f", "arguments": "}"}),
            call(index=1, id="b", function={"name": "g", "arguments": "{}"}),
        ],
        [
            {
                "tool_calls": [
                    {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}},
                    {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}},
                ]
            }
        ],
        [
            call(index=0, id="a", function={"name": "f"}),
            call(index=1, id="b", function={"name": "g"}),
            call(index=1, function={"arguments": "{}"}),
            call(index=0, function={"arguments": "{}"}),
        ],
        [
            call(index=1, id="a", function={"name": "f", "arguments": "{}"}),
            call(index=2, id="b", function={"name": "g", "arguments": "{}"}),
        ],
        [
            call(id="a", function={"name": "f", "arguments": "{"}),
            call(function={"arguments": "}"}),
            call(id="b", function={"name": "g", "arguments": "{}"}),
        ],
    ],
    ids=[
        "as OpenAI",
        "no index",
        "index 0 twice",
        "id and name repeated",
        "both at once",
        "by turns",
        "from 1",
        "no index in pieces",
    ],
)
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
def test_tool_calls_are_found_as_vendors_tell_them(deltas, finish):
    read = answer(stream(*deltas, finish=finish))
    assert read.content == (ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}"))
    assert read.stop_reason == "tool_use"


def test_calls_without_ids_stay_apart_and_their_ids_are_left_to_who_tells_of_them():
    read = answer(
        stream(
            call(index=0, function={"name": "f", "arguments": "{}"}),
            call(index=0, function={"name": "f", "arguments": "{}"}),
        )
    )
    assert [part.id for part in read.tool_calls()] == ["", ""]


def test_an_answer_is_finished_without_done_but_not_without_a_reason():
    assert answer(stream({"content": "a"}, done=False)).text() == "a"
    with pytest.raises(BrokenOff):
        answer(b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n')
    with pytest.raises(BrokenOff):
        answer(b"")
    with pytest.raises(BrokenOff):
        answer(b"data: [DONE]\n\n")
    with pytest.raises(BrokenOff):
        answer(b"data: <html>\n\n")


def test_fields_that_nobody_knows_are_gathered_from_a_stream():
    data = stream(
        {"content": "a", "x_list": [1], "x_text": "a", "x_object": {"t": "1"}},
        {"content": "b", "x_list": [2], "x_text": "b", "x_object": {"t": "2"}},
        logprobs={"content": [{"token": "b"}]},
    )
    read = answer(data)
    assert read.text() == "ab"
    assert {name: json.loads(bytes(value)) for name, value in read.extra["openai_chat"].items()} == {
        "message.x_list": [1, 2],
        "message.x_text": "ab",
        "message.x_object": {"t": "12"},
        "choice.logprobs": {"content": [{"token": "b"}]},
    }


def test_a_stop_sequence_is_known_where_the_vendor_says_it():
    read = answer(stream({"content": "a"}, stop_reason="END"))
    assert (read.stop_reason, read.stop_sequence) == ("stop_sequence", "END")
    assert answer(stream({"content": "a"}, stop_reason=32000)).stop_reason == "end_turn"


def test_a_custom_tools_call_is_put_together_from_a_stream():
    read = answer(
        stream(
            call(index=0, id="a", type="custom", custom={"name": "sh", "input": "l"}),
            call(index=0, custom={"input": "s"}),
            finish="tool_calls",
        )
    )
    (called,) = read.content
    assert (called.id, called.name, json.loads(called.arguments)) == ("a", "sh", {"input": "ls"})


def test_usage_is_read_where_reasoning_is_counted_beside_the_completion():
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 35,
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    assert WIRE.usage_of(json.dumps({"usage": usage}).encode()).output_tokens == 25


OWN_USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "cost": 0.0042,
    "cost_details": {"upstream_inference_cost": None},
    "num_sources_used": 0,
    "prompt_tokens_details": {"cached_tokens": 4, "text_tokens": 10},
    "completion_tokens_details": {"reasoning_tokens": 2, "accepted_prediction_tokens": 3},
}


def told_usage(told):
    """What a client is told of what is in OWN_USAGE."""
    return {
        name: {inner: told[name][inner] for inner in value}
        if name.endswith("_tokens_details")
        else told[name]
        for name, value in OWN_USAGE.items()
    }


def test_what_only_a_vendor_says_of_usage_is_told_again_with_an_answer():
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    given = {"id": "c", "model": "m", "choices": [choice], "usage": OWN_USAGE}
    read = WIRE.decode_response(json.dumps(given).encode(), provider="p")
    assert told_usage(json.loads(WIRE.encode_response(read))["usage"]) == OWN_USAGE


@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "unfolded"])
def test_what_only_a_vendor_says_of_usage_is_told_again_at_the_end_of_a_stream(whole):
    data = stream({"content": "hi"}, done=False)
    data += (
        b"data: "
        + json.dumps({"id": "c", "choices": [], "usage": OWN_USAGE}).encode()
        + b"\n\ndata: [DONE]\n\n"
    )
    decoder = WIRE.stream_decoder(provider="p")
    events = [*decoder.feed(data), *decoder.end()]
    request = WIRE.decode_request(body(stream=True, stream_options={"include_usage": True}))
    encoder = WIRE.stream_encoder(request)
    told = b"".join(map(encoder.encode, unfold(fold(events)) if whole else events))
    chunks = [json.loads(line[6:]) for line in told.splitlines() if line.startswith(b"data: ")]
    assert told_usage(chunks[-1]["usage"]) == OWN_USAGE
    assert {name for chunk in chunks for name in chunk if name.startswith("usage.")} == set()


def test_a_tap_is_not_deceived_by_what_the_model_says():
    tap = WIRE.usage_tap()
    tap.feed(
        stream(
            {"content": 'data: [DONE] "usage":{"prompt_tokens":1} "finish_reason":"stop"'},
            finish=None,
            done=False,
        )
    )
    assert (tap.usage, tap.finished) == (None, False)
    tap.feed(stream(finish="length", done=False))
    assert tap.finished


# ----------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (
            400,
            {"message": "too many tokens", "code": "context_length_exceeded", "param": "messages"},
            ContextTooLong,
        ),
        (
            400,
            {
                "message": "This model's maximum context length is 8192 tokens",
                "type": "BadRequestError",
                "code": 400,
            },
            ContextTooLong,
        ),
        (400, {"message": "no", "code": "content_policy_violation"}, ContentRefused),
        (400, {"message": "filtered", "code": "content_filter"}, ContentRefused),
        (400, {"message": "Invalid value", "param": "tools[0]"}, BadRequest),
        (
            401,
            {"message": "Incorrect API key provided: sk-secret", "code": "invalid_api_key"},
            Unauthenticated,
        ),
        (404, {"message": "The model `x` does not exist", "code": "model_not_found"}, NotFound),
        (
            429,
            {"message": "Rate limit reached for org-secret", "type": "tokens", "code": "rate_limit_exceeded"},
            RateLimited,
        ),
        (
            429,
            {
                "message": "You exceeded your current quota",
                "type": "insufficient_quota",
                "code": "insufficient_quota",
            },
            Unavailable,
        ),
        (500, {"message": "oops", "type": "server_error"}, Unavailable),
        (503, {"message": "busy"}, Overloaded),
        (500, "a string, as Ollama says it", Unavailable),
    ],
)
def test_refusals_become_causes(status, error, kind):
    raised = WIRE.decode_error(status, {"retry-after": "7"}, json.dumps({"error": error}).encode())
    assert type(raised) is kind
    assert "secret" not in raised.message
    assert raised.retry_after_s == 7
    if isinstance(error, dict) and error.get("param"):
        assert raised.field == error["param"]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT", "date": "Fri, 20 Nov 2026 12:00:00 GMT"}, 30),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT"}, None),
        ({"retry-after": "soon", "date": "now"}, None),
        ({"retry-after": "9" * 40}, 86400),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_read_as_vendors_say_it(headers, seconds):
    assert WIRE.decode_error(429, headers, b"").retry_after_s == seconds


def test_an_answer_that_is_an_error_or_no_answer_is_told_apart():
    with pytest.raises(RateLimited):
        WIRE.decode_response(b'{"error":{"code":429,"message":"slowly"}}', provider="p")
    for given in (
        b"",
        b"<html>",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":[{}]}',
        b'{"choices":[{"message":[]}]}',
    ):
        with pytest.raises(Unavailable):
            WIRE.decode_response(given, provider="p")


@pytest.mark.parametrize(
    ("usage", "kept"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}, {}),
        ({"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 0}}, {}),
        ({"completion_tokens_details": {"reasoning_tokens": 1, "rejected_prediction_tokens": 0}}, {}),
        (
            {"completion_tokens_details": {"rejected_prediction_tokens": 4}},
            {"usage.completion_tokens_details.rejected_prediction_tokens": b"4"},
        ),
        ({"prompt_tokens_details": {"reasoning_tokens": 1}}, {"usage.prompt_tokens_details.reasoning_tokens": b"1"}),
        ({"prompt_cache_hit_tokens": 7, "cost": 0.5}, {"usage.prompt_cache_hit_tokens": b"7", "usage.cost": b"0.5"}),
    ],
)  # fmt: skip
def test_of_a_usage_what_no_count_says_is_kept(usage: dict[str, Any], kept: dict[str, bytes]) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    body = msgspec.json.encode({"id": "c", "model": "m", "choices": [choice], "usage": usage})
    told = named("openai_chat").decode_response(body, provider="p").extra.get("openai_chat", {})
    assert {name: bytes(value) for name, value in told.items()} == kept


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"},
        {"index": 0, "message": {"content": "a", "refusal": None, "annotations": []}, "logprobs": None},
        {"message": {"content": None, "refusal": "no"}, "finish_reason": "content_filter"},
        {"message": {"content": [{"type": "text", "text": "a"}], "reasoning": "so"}, "finish_reason": "length"},
        {"message": {"content": "", "reasoning_details": [{"text": "so"}]}, "finish_reason": "function_call"},
        {"message": {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "whole",
    [
        {},
        {"id": "c", "object": "chat.completion", "model": "m", "created": 1, "system_fingerprint": None},
        {"service_tier": "default", "usage": {"prompt_tokens": 1, "completion_tokens": 2, "cost": 0.5}},
    ],
)
def test_an_answer_says_the_same_beside_a_field_that_nobody_knows(choice: Any, whole: Any) -> None:
    """The field makes it take the careful way."""
    plain = WIRE.decode_response(msgspec.json.encode({**whole, "choices": [choice]}), provider="p")
    beside = {**whole, "choices": [choice], "unknown": None}
    assert plain == WIRE.decode_response(msgspec.json.encode(beside), provider="p")
