"""Bedrock Converse: botocore is the judge in both directions; what each field means; what survives a round trip, however bytes are cut."""

import json
from typing import Any

import pytest

from freehold.core.errors import (
    BadRequest,
    BrokenOff,
    ContextTooLong,
    Forbidden,
    FreeholdError,
    Internal,
    LimitReached,
    NotFound,
    Overloaded,
    RateLimited,
    TimedOut,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from freehold.core.messages import (
    Address,
    Bytes,
    Carried,
    CarriedTool,
    JsonOutput,
    Media,
    Message,
    ModelRequest,
    ModelResponse,
    Opaque,
    Raw,
    Reasoning,
    ReasoningSetting,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
    ToolSpec,
    Usage,
    VendorFile,
)
from freehold.core.stream import (
    ArgumentsAdded,
    Finished,
    PartFinished,
    PartStarted,
    Started,
    TextAdded,
    fold,
    unfold,
)
from freehold.wires import named
from freehold.wires._aws_eventstream import FrameReader, encode_event, encode_exception
from freehold.wires.bedrock_converse import WIRE
from tests.wires._bedrock_values import EMPTY, HELLO, NAME, asking, encoded, golden
from tests.wires._botocore import asked_by_boto3, parsed_by_botocore, streamed_to_botocore, valid_for_botocore


def test_a_request_of_boto3_means_what_was_asked() -> None:
    body = asked_by_boto3(
        messages=[
            {"role": "user", "content": [{"image": {"format": "jpeg", "source": {"bytes": b"\x00\xff"}}}, {"text": "What?"}]},
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "look", "input": {"n": 1}}}]},
            {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "a cat"}]}}]},
        ],
        system=[{"text": "Brief."}],
        inferenceConfig={"maxTokens": 9, "stopSequences": ["."]},
        toolConfig={"tools": [{"toolSpec": {"name": "look", "inputSchema": {"json": {"type": "object"}}}}], "toolChoice": {"any": {}}},
    )  # fmt: skip
    request = WIRE.decode_request(body)
    assert request.messages == (
        Message("user", (Media("image", "image/jpeg", Bytes(b"\x00\xff")), Text("What?"))),
        Message("assistant", (ToolCall("t", "look", '{"n": 1}'),)),
        Message("tool", (ToolResult("t", (Text("a cat"),)),)),
    )
    assert (request.instructions, request.tokens_max, request.stop) == ((Text("Brief."),), 9, (".",))
    assert [tool.name for tool in request.tools if isinstance(tool, ToolSpec)] == ["look"]
    assert request.tool_choice == ToolChoice("required")


# -------------------------------------------------------------------------------------------------- goldens


def test_the_documented_request() -> None:
    request = WIRE.decode_request(golden("request.json"))
    assert request.instructions == (Text("You keep the stock.", "1h"),)
    asked, thought, results, more = request.messages
    assert asked == Message("user", (Text("Is SKU-4482 in Shanghai?"),))
    assert thought.content == (
        Reasoning("I should look.", Opaque(NAME, "", "", "EqQB")),
        Reasoning("", Opaque(NAME, "", "", "RW13Sw==", "redacted_content")),
        Text("I'll look."),
        ToolCall("tooluse_01", "stock", '{"sku": "4482", "at": "SHA"}'),
        ToolCall("tooluse_02", "now", "{}"),
    )
    counted = Text('{"count": 0}', extra={NAME: {"json": Raw(b'{"count": 0}')}})
    assert results == Message(
        "tool",
        (
            ToolResult("tooluse_01", (counted, Media("image", "image/png", HELLO)), cache="5m"),
            ToolResult("tooluse_02", (Text("no clock"),), failed=True),
        ),
    )
    said, pdf, notes, video, guarded, found = more.content
    assert said == Text("And this?")
    assert pdf == Media("document", "application/pdf", HELLO, "manifest")
    assert isinstance(notes, Media)
    assert (notes.media_type, notes.source) == ("text/plain", HELLO)
    assert sorted(notes.extra[NAME]) == ["citations"]
    assert isinstance(video, Media)
    assert (video.media_type, video.source) == ("video/3gpp", VendorFile(NAME, "s3://quay/crane.3gp"))
    assert isinstance(guarded, Text)
    assert guarded.text == "Who owns it?"
    assert isinstance(found, Carried)
    stock, grounding = request.tools
    assert isinstance(stock, ToolSpec)
    assert (stock.name, stock.strict, stock.cache) == ("stock", True, "5m")
    assert isinstance(grounding, CarriedTool)
    assert request.tool_choice == ToolChoice("named", "stock")
    assert (request.tokens_max, request.temperature, request.top_p, request.top_k) == (1024, 0.5, 0.9, 40)
    assert request.reasoning == ReasoningSetting(effort="high", budget_tokens=512)
    assert request.output == JsonOutput(Raw(b'{"type":"object"}'), "count", "How many there are.")
    assert sorted(request.extra[NAME]) == [
        "additionalModelRequestFields.anthropic_beta",
        "additionalModelResponseFieldPaths",
        "guardrailConfig",
        "performanceConfig",
        "requestMetadata",
        "serviceTier",
    ]


def test_the_documented_request_comes_out_as_it_came_in_and_botocore_finds_nothing_wrong() -> None:
    body = json.loads(golden("request.json"))
    assert valid_for_botocore(body) == ""
    again = encoded(WIRE.decode_request(golden("request.json")))
    notes = body["messages"][2]["content"][5]["document"]["source"]
    assert notes.pop("text") == "hello"
    notes["bytes"] = "aGVsbG8="  # The same bytes, said the other way.
    assert again == body
    assert valid_for_botocore(again) == ""


def test_the_documented_answer() -> None:
    answer = WIRE.decode_response(golden("response.json"), provider="p")
    thought, text, call = answer.content
    assert thought == Reasoning("Hm.", Opaque(NAME, "p", "", "EqQB"))
    assert isinstance(text, Text)
    assert text.text == "None. Closed."
    assert json.loads(bytes(text.extra[NAME]["citations"]))[0]["title"] == "Ports"
    assert call == ToolCall("tooluse_01", "stock", '{"sku": "4482"}')
    assert answer.stop_reason == "tool_use"
    assert answer.usage == Usage(
        input_tokens=1310, output_tokens=50, cache_read_tokens=1000, cache_write_tokens=100, cache_write_1h_tokens=200
    )  # fmt: skip
    assert sorted(answer.extra[NAME]) == ["metrics", "performanceConfig", "trace"]


def test_botocore_reads_the_documented_answer_as_it_was() -> None:
    again = WIRE.encode_response(WIRE.decode_response(golden("response.json"), provider="p"))
    expected, got = parsed_by_botocore(golden("response.json")), parsed_by_botocore(again)
    content = expected["output"]["message"]["content"]
    content[1]["citationsContent"]["content"] = [{"text": "None. Closed."}]
    assert got == expected


# ------------------------------------------------------------------------------------ towards other vendors


@pytest.mark.parametrize("wire", ["openai_chat", "anthropic_messages"])
def test_a_plain_conversation_goes_to_any_vendor(wire: str) -> None:
    request = WIRE.decode_request(
        asking(
            {"image": {"format": "png", "source": {"bytes": "aGVsbG8="}}},
            {"text": "hi"},
            requestMetadata={"a": "b"},
            serviceTier={"type": "flex"},
            additionalModelResponseFieldPaths=["/stop_sequence"],
        )
    )
    body = json.loads(named(wire).encode_request(request, provider="p"))
    assert len(body["messages"][0]["content"]) == 2


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"guardrailConfig": {"guardrailIdentifier": "g"}}, "guardrailConfig"),
        ({"promptVariables": {"a": {"text": "b"}}}, "promptVariables"),
        ({"additionalModelRequestFields": {"inferenceConfig": {"topK": 5}}}, "additionalModelRequestFields.inferenceConfig"),
        ({"inferenceConfig": {"new": 1}}, "inferenceConfig.new"),
    ],
)  # fmt: skip
def test_what_only_bedrock_can_do_is_refused_elsewhere_by_its_path(more: dict[str, Any], field: str) -> None:
    request = WIRE.decode_request(asking({"text": "hi"}, **more))
    assert json.loads(WIRE.encode_request(request, provider="p")).items() >= more.items()
    with pytest.raises(Unsupported) as caught:
        named("openai_chat").encode_request(request, provider="p")
    assert caught.value.field == field


def test_another_vendors_seal_survives_a_client_of_bedrock() -> None:
    seal = Opaque("anthropic_messages", "anthropic", "claude", "EqQB")
    answer = ModelResponse(
        id="m", model="c", content=(Reasoning("Hm.", seal), Text("Yes")), stop_reason="end_turn"
    )
    (block, _) = json.loads(WIRE.encode_response(answer))["output"]["message"]["content"]
    again = WIRE.decode_request(
        json.dumps({"messages": [{"role": "assistant", "content": [block, {"text": "Yes"}]}]}).encode()
    )
    assert again.messages[0].content[0] == Reasoning("Hm.", seal)
    assert len(encoded(again)["messages"][0]["content"]) == 1  # It does not go to Bedrock itself.


def test_a_calls_seal_survives_a_client_of_bedrock_whole_and_streamed() -> None:
    seal = Opaque("google_generate", "google", "gemini", "c2ln", "thought_signature")
    call = ToolCall("call 1", "stock", "{}", seal)
    answer = ModelResponse(
        id="m", model="g", content=(call, ToolCall("b", "now", "{}")), stop_reason="tool_use"
    )
    blocks = json.loads(WIRE.encode_response(answer))["output"]["message"]["content"]
    again = WIRE.decode_request(json.dumps({"messages": [{"role": "assistant", "content": blocks}]}).encode())
    assert again.messages[0].content == answer.content
    encoder, decoder = WIRE.stream_encoder(EMPTY), WIRE.stream_decoder(provider="")
    told = b"".join(map(encoder.encode, unfold(answer)))
    assert [next(iter(event)) for event in streamed_to_botocore(told)].count("contentBlockStop") == 3
    (_, thought, _) = fold([*decoder.feed(told), *decoder.end()]).content
    assert isinstance(thought, Reasoning)
    assert thought.opaque is not None
    assert thought.opaque.data == "c2ln"


def test_an_image_in_an_answer_is_told_whole_and_streamed() -> None:
    image = Media("image", "image/png", HELLO)
    answer = ModelResponse(id="", model="", content=(image,), stop_reason="end_turn")
    assert WIRE.decode_response(WIRE.encode_response(answer), provider="p").content == (image,)
    encoder, decoder = WIRE.stream_encoder(EMPTY), WIRE.stream_decoder(provider="p")
    told = b"".join(map(encoder.encode, unfold(answer)))
    assert fold([*decoder.feed(told), *decoder.end()]).content == (image,)
    _, start, delta, *_ = streamed_to_botocore(told)
    assert start["contentBlockStart"]["start"] == {"image": {"format": "png"}}
    assert delta["contentBlockDelta"]["delta"] == {"image": {"source": {"bytes": b"hello"}}}


def test_roles_take_turns_whoever_asks() -> None:
    request = ModelRequest(
        model="m",
        messages=(
            Message("user", (Text("a"),)),
            Message("user", (Text("b"),), "Ada"),
            Message("assistant", (Reasoning("h", Opaque("openai_chat", "o", "", "x")), ToolCall("functions.f:0/1", "f", ""))),
            Message("tool", (ToolResult("functions.f:0/1", ()),)),
            Message("user", (Text("c"),)),
        ),
    )  # fmt: skip
    first, called, answered = encoded(request)["messages"]
    assert first["content"] == [{"text": "a"}, {"text": "Ada:"}, {"text": "b"}]
    (use,) = called["content"]
    assert use["toolUse"]["input"] == {}
    assert answered["role"] == "user"
    assert answered["content"][0]["toolResult"]["toolUseId"] == use["toolUse"]["toolUseId"]
    assert answered["content"][1] == {"text": "c"}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ModelRequest(model="m", messages=(Message("user", (Media("image", "", Address("https://a/b.png")),)),)), "messages[0].content[0]"),
        (ModelRequest(model="m", messages=(Message("user", (Media("image", "text/x", HELLO),)),)), "messages[0].content[0]"),
        (ModelRequest(model="m", messages=(), output=JsonOutput()), "response_format.type"),
        (ModelRequest(model="m", messages=(), tools=(ToolSpec("f"),), tool_choice=ToolChoice(parallel=False)), "tool_choice.parallel"),
        (ModelRequest(model="m", messages=(Message("tool", (ToolResult("i", ()),)),), tools=(ToolSpec("f"),), tool_choice=ToolChoice("none")), "tool_choice"),
        (ModelRequest(model="m", messages=(), tools=(CarriedTool("openai_chat", "web_search", Raw(b"{}")),)), "tools[0]"),
    ],
)  # fmt: skip
def test_what_bedrock_cannot_say_is_refused_by_its_path(request_: ModelRequest, field: str) -> None:
    with pytest.raises(Unsupported) as caught:
        encoded(request_)
    assert caught.value.field == field


def test_tools_that_may_not_be_called_are_left_out() -> None:
    request = ModelRequest(model="m", messages=(), tools=(ToolSpec("f"),), tool_choice=ToolChoice("none"))
    assert "toolConfig" not in encoded(request)


def test_marks_that_have_nothing_before_them_stay_blocks() -> None:
    body = asking({"cachePoint": {"type": "default"}}, {"text": "a"})
    assert encoded(WIRE.decode_request(body))["messages"] == json.loads(body)["messages"]


@pytest.mark.parametrize(
    ("block", "field"),
    [
        ({"text": 1}, "messages[0].content[0].text"),
        ({}, "messages[0].content[0]"),
        ({"text": "a", "image": {}}, "messages[0].content[0]"),
        ({"image": {"format": "png"}}, "messages[0].content[0].image.source"),
        ({"image": {"format": "png", "source": {"bytes": "?"}}}, "messages[0].content[0].image.source.bytes"),
        ({"toolUse": {"name": "f"}}, "messages[0].content[0].toolUse.toolUseId"),
        ({"toolResult": {"toolUseId": "i", "content": [{"text": 1}]}}, "messages[0].content[0].toolResult.content[0].text"),
    ],
)  # fmt: skip
def test_wrong_blocks_are_named_by_their_path(block: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        WIRE.decode_request(asking(block))
    assert caught.value.field == field


def test_a_null_beside_a_block_says_nothing() -> None:
    assert WIRE.decode_request(asking({"text": "a", "image": None})).messages[0].content == (Text("a"),)


# --------------------------------------------------------------------------------------------------- streams


def test_parallel_calls_that_come_interleaved_are_told_one_by_one() -> None:
    encoder = WIRE.stream_encoder(EMPTY)
    told = [
        Started("i", "m"), PartStarted(0, ToolCall("a", "f", "")), PartStarted(1, ToolCall("b", "g", "")),
        ArgumentsAdded(1, '{"y":'), ArgumentsAdded(0, '{"x":1}'), ArgumentsAdded(1, "2}"), PartFinished(0), PartFinished(1),
        Finished("tool_use"),
    ]  # fmt: skip
    events = streamed_to_botocore(b"".join(map(encoder.encode, told)))
    numbers = [next(iter(event.values())).get("contentBlockIndex") for event in events]
    assert [number for number in numbers if number is not None] == [0, 0, 0, 1, 1, 1, 1]


def test_a_stream_whose_usage_never_comes_still_ends() -> None:
    decoder = WIRE.stream_decoder(provider="p")
    data = encode_event("messageStart", b'{"role":"assistant"}') + encode_event(
        "messageStop", b'{"stopReason":"end_turn"}'
    )
    assert decoder.feed(data) == [Started("", "")]
    assert decoder.end() == [Finished("end_turn")]


def test_a_stream_that_stops_in_the_middle_is_broken_off() -> None:
    whole = b"".join(
        map(
            WIRE.stream_encoder(EMPTY).encode,
            unfold(WIRE.decode_response(golden("response.json"), provider="p")),
        )
    )
    frames = FrameReader().feed(whole)
    stop = whole.index(b"messageStop") - 30
    for end in (len(whole) // 3, stop, 20):
        decoder = WIRE.stream_decoder(provider="p")
        decoder.feed(whole[:end])
        with pytest.raises(BrokenOff):
            decoder.end()
    assert frames


@pytest.mark.parametrize(
    ("exception_type", "cause"),
    [
        ("throttlingException", RateLimited), ("serviceUnavailableException", Overloaded), ("validationException", BadRequest),
        ("internalServerException", Unavailable), ("modelStreamErrorException", BrokenOff), ("somethingNew", Unavailable),
    ],
)  # fmt: skip
def test_an_exception_in_the_middle_is_its_cause(exception_type: str, cause: type[FreeholdError]) -> None:
    decoder = WIRE.stream_decoder(provider="p")
    decoder.feed(encode_event("messageStart", b'{"role":"assistant"}'))
    with pytest.raises(cause) as caught:
        decoder.feed(encode_exception(exception_type, b'{"message":"no"}'))
    assert type(caught.value) is cause


ERRORS = [
    (BadRequest("b"), 400, "ValidationException", "validationException"),
    (ContextTooLong("c"), 400, "ValidationException", "validationException"),
    (Unauthenticated("u"), 403, "AccessDeniedException", "internalServerException"),
    (Forbidden("f"), 403, "AccessDeniedException", "internalServerException"),
    (NotFound("n"), 404, "ResourceNotFoundException", "internalServerException"),
    (TimedOut("t"), 408, "ModelTimeoutException", "modelStreamErrorException"),
    (BrokenOff("b"), 424, "ModelErrorException", "modelStreamErrorException"),
    (RateLimited("r", retry_after_s=2.5), 429, "ThrottlingException", "throttlingException"),
    (LimitReached("l"), 400, "ServiceQuotaExceededException", "throttlingException"),
    (Internal("i"), 500, "InternalServerException", "internalServerException"),
    (Unavailable("u"), 503, "ServiceUnavailableException", "serviceUnavailableException"),
    (Overloaded("o"), 503, "ServiceUnavailableException", "serviceUnavailableException"),
]


@pytest.mark.parametrize(("error", "status", "named_", "in_stream"), ERRORS)
def test_errors_are_told_as_bedrock_tells_them(
    error: FreeholdError, status: int, named_: str, in_stream: str
) -> None:
    told = WIRE.encode_error(error, "req_1")
    parsed = parsed_by_botocore(told.body, told.status, told.headers)
    assert (told.status, parsed["Error"]["Code"], parsed["Error"]["Message"]) == (status, named_, str(error))
    assert parsed["ResponseMetadata"]["RequestId"] == "req_1"
    (frame,) = FrameReader().feed(WIRE.stream_encoder(EMPTY).error(error, "req_1"))
    assert (frame.headers[":exception-type"], json.loads(frame.payload)) == (
        in_stream,
        {"message": str(error)},
    )


@pytest.mark.parametrize(
    ("status", "headers", "body", "cause"),
    [
        (400, {"x-amzn-errortype": "ValidationException:http://internal.amazon.com/"}, b'{"message":"Bad role"}', BadRequest),
        (400, {"x-amzn-errortype": "ValidationException"}, b'{"message":"Input is too long for requested model."}', ContextTooLong),
        (400, {}, b'{"__type":"com.amazon.coral.service#ThrottlingException","Message":"slow"}', RateLimited),
        (403, {"x-amzn-errortype": "UnrecognizedClientException"}, b'{"message":"invalid token"}', Unauthenticated),
        (403, {}, b'{"message":"You don\'t have access to the model"}', Forbidden),
        (404, {}, b"{}", NotFound),
        (424, {"x-amzn-errortype": "ModelErrorException"}, b"{}", Unavailable),
        (429, {"x-amzn-errortype": "ModelNotReadyException"}, b"{}", Overloaded),
        (503, {}, b"<html>", Overloaded),
    ],
)  # fmt: skip
def test_bedrocks_errors_are_their_cause(
    status: int, headers: dict[str, str], body: bytes, cause: type[FreeholdError]
) -> None:
    assert type(WIRE.decode_error(status, headers, body)) is cause


def test_text_that_follows_a_stop_is_not_told() -> None:
    decoder = WIRE.stream_decoder(provider="p")
    frames = [
        encode_event("messageStart", b'{"role":"assistant"}'),
        encode_event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"a"}}'),
        encode_event("messageStop", b'{"stopReason":"max_tokens"}'),
        encode_event(
            "metadata",
            b'{"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3},"metrics":{"latencyMs":4}}',
        ),
        encode_event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"b"}}'),
    ]
    events = [event for frame in frames for event in decoder.feed(frame)] + list(decoder.end())
    assert TextAdded(0, "b") not in events
    assert fold(events).stop_reason == "tokens_max"
