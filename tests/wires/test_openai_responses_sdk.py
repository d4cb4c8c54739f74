"""OpenAI's unmodified SDK reads what the wire writes for clients of Responses, and writes what it reads."""

import json

import openai
import pytest
from pydantic import BaseModel

from freehold.core.errors import ContextTooLong, Overloaded, RateLimited
from freehold.core.messages import ModelResponse, Opaque, Refusal, Text, ToolCall
from freehold.core.stream import Started, unfold
from freehold.wires import named
from tests.wires._values import ANTHROPIC, OPENAI
from tests.wires.test_sdks import ANSWER, BY_TURNS, Door

NAME = "openai_responses"
WIRE = named(NAME)


class Count(BaseModel):
    """What the SDK parses an answer into."""

    units: int


def whole(answer):
    return Door(
        headers={"content-type": "application/json"}, body=WIRE.encode_response(answer, created=1790000000)
    )


def streamed(events):
    encoder = WIRE.stream_encoder(WIRE.decode_request(b'{"model":"m","input":"hi"}'), created=1790000000)
    body = b"".join(map(encoder.encode, events)) + encoder.end()
    return Door(headers={"content-type": "text/event-stream"}, body=body)


def test_it_reads_an_answer():
    read = whole(ANSWER).openai().responses.create(model="m", input="hi")
    assert [item.type for item in read.output] == [
        "reasoning",
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert read.output_text == "None, 上海."
    assert read.output[0].summary[0].text == "Hm."
    assert [(item.call_id, item.name, item.arguments) for item in read.output[3:]] == [
        ("call_1", "stock", '{"sku":"4482"}'),
        ("call_2", "now", ""),
    ]
    assert (read.usage.input_tokens, read.usage.output_tokens, read.usage.total_tokens) == (30, 9, 39)
    assert read.usage.input_tokens_details.cached_tokens == 10
    assert read.usage.output_tokens_details.reasoning_tokens == 3


@pytest.mark.parametrize("events", [list(unfold(ANSWER)), BY_TURNS], ids=["in order", "by turns"])
def test_it_gathers_a_stream(events):
    with streamed(events).openai().responses.stream(model="m", input="hi") as stream:
        told = [event.type for event in stream]
        read = stream.get_final_response()
    assert told[0] == "response.created"
    calls = [item.arguments for item in read.output if item.type == "function_call"]
    if events is BY_TURNS:
        assert calls == ['{"x":1}', '{"y":2}']
        assert read.output_text == "done"
        assert read.usage.output_tokens == 4
    else:
        assert calls == ['{"sku":"4482"}', ""]
        assert read.output_text == "None, 上海."


def test_it_reads_a_refusal():
    answer = ModelResponse(id="r", model="m", content=(Refusal("I won't."),), stop_reason="refusal")
    read = whole(answer).openai().responses.create(model="m", input="hi")
    assert read.output[0].content[0].refusal == "I won't."
    assert read.status == "completed"


def test_it_parses_an_answer_into_a_shape():
    answer = ModelResponse(id="r", model="m", content=(Text('{"units":3}'),), stop_reason="end_turn")
    door = whole(answer)
    assert door.openai().responses.parse(model="m", input="hi", text_format=Count).output_parsed.units == 3
    asked = WIRE.decode_request(door.heard)
    assert asked.output is not None
    assert asked.output.strict


def test_it_hears_when_an_answer_was_cut():
    cut = ModelResponse(id="a", model="m", content=(Text("on"),), stop_reason="tokens_max")
    read = whole(cut).openai().responses.create(model="m", input="hi")
    assert (read.status, read.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize("door", [whole(ANSWER), streamed(unfold(ANSWER))], ids=["whole", "stream"])
def test_thinking_signatures_survive_its_clients(door):
    """As the vendor's guide has it: the answer's items go back in the next request's input."""
    if door.headers["content-type"] == "application/json":
        said = door.openai().responses.create(model="m", input="hi").output
    else:
        with door.openai().responses.stream(model="m", input="hi") as stream:
            said = stream.get_final_response().output
    again = whole(ANSWER)
    items = [{"role": "user", "content": "hi"}, *(item.model_dump(exclude_none=True) for item in said)]
    again.openai().responses.create(model="m", input=items)
    request = WIRE.decode_request(again.heard)
    assert request.messages[-1].content[:2] == ANSWER.content[:2]
    provided = json.loads(named(ANTHROPIC).encode_request(request, provider="anthropic"))
    assert provided["messages"][-1]["content"][:2] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2VhbA=="},
        {"type": "redacted_thinking", "data": "aGlkZGVu"},
    ]
    at_home = json.loads(WIRE.encode_request(request, provider="openai"))
    assert all(item["type"] != "reasoning" for item in at_home["input"])
    json.loads(named(OPENAI).encode_request(request, provider="openai"))


@pytest.mark.parametrize("make", [whole, lambda answer: streamed(unfold(answer))], ids=["whole", "stream"])
def test_a_calls_seal_survives_its_clients(make):
    seal = Opaque(OPENAI, "google", "g", '{"google":{}}', "extra_content")
    answer = ModelResponse(
        id="r", model="m", content=(ToolCall("a", "f", "{}", seal),), stop_reason="tool_use"
    )
    client = make(answer).openai()
    if make is whole:
        said = client.responses.create(model="m", input="hi").output
    else:
        with client.responses.stream(model="m", input="hi") as stream:
            said = stream.get_final_response().output
    items = [item.model_dump(exclude_none=True) for item in said]
    request = WIRE.decode_request(json.dumps({"model": "m", "input": items}).encode())
    (call,) = request.messages[0].content
    assert (call.id, call.opaque) == ("a", seal)


@pytest.mark.parametrize("to", [OPENAI, ANTHROPIC])
def test_an_own_seal_survives_a_client_of_another_vendor(to):
    item = '{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"c2VhbA=="}'
    seal = Opaque(NAME, "openai", "m", item, "item")
    answer = ModelResponse(id="r", model="m", content=(ANSWER.content[2],), stop_reason="end_turn")
    thought = type(ANSWER.content[0])("", seal)
    answer = ModelResponse(id="r", model="m", content=(thought, *answer.content), stop_reason="end_turn")
    told = json.loads(named(to).encode_response(answer))
    said = (
        told["choices"][0]["message"] if to == OPENAI else {"role": "assistant", "content": told["content"]}
    )
    request = named(to).decode_request(
        json.dumps({"model": "m", "max_tokens": 9, "messages": [said]}).encode()
    )
    (reasoning, _text) = json.loads(WIRE.encode_request(request, provider="openai"))["input"]
    assert reasoning == json.loads(item)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (RateLimited("slowly", retry_after_s=1.2), openai.RateLimitError, "rate_limit_exceeded"),
        (ContextTooLong("too long", field="input"), openai.BadRequestError, "context_length_exceeded"),
    ],
)
def test_it_raises_what_it_would_raise_at_home(error, kind, code):
    told = WIRE.encode_error(error, "req_1")
    with pytest.raises(kind) as raised:
        Door(told.status, told.headers, told.body).openai().responses.create(model="m", input="hi")
    assert (raised.value.code, raised.value.param) == (code, error.field)


def test_it_raises_an_error_in_the_middle_of_a_stream():
    encoder = WIRE.stream_encoder(WIRE.decode_request(b'{"model":"m","input":"hi"}'))
    body = encoder.encode(Started("a", "m")) + encoder.error(Overloaded("busy"), "req_1")
    assert b"event: response.failed" in body
    client = Door(headers={"content-type": "text/event-stream"}, body=body).openai()
    with pytest.raises(openai.APIError, match="busy"):
        list(client.responses.create(model="m", input="hi", stream=True))
