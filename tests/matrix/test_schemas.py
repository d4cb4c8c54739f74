"""The judges themselves: they find what is wrong, and say when they are not there."""

import msgspec
import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming

from tests.gateway._vendors import Asked
from tests.matrix import _openapi, schemas
from tests.matrix._features import FEATURES
from tests.matrix._tap import Answered
from tests.matrix._typed import violations
from tests.matrix._world import clients, vendors

USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
CHOICE = {
    "index": 0,
    "finish_reason": "stop",
    "logprobs": None,
    "message": {"role": "assistant", "content": "hi", "refusal": None},
}
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [CHOICE],
    "usage": USAGE,
}


DELTA = {
    "type": "response.output_text.delta",
    "item_id": "i",
    "output_index": 0,
    "content_index": 0,
    "delta": "x",
    "logprobs": [],
}


def told(body: object, *, kind: str = "application/json", status: int = 200) -> Answered:
    answered = Answered()
    answered.status, answered.headers = status, {"content-type": kind}
    answered.body = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return answered


@pytest.mark.parametrize("document", _openapi.NAMES)
def test_the_vendors_document_is_there(document: str) -> None:
    if not _openapi.is_there(document):
        pytest.skip(f"{_openapi.NAMES[document]} is not in {_openapi.FOLDER}: nothing was held against it")
    (judged, *_) = [one for one in schemas.DIALECTS.values() if one.document == document]
    assert _openapi.wrong(document, judged.answer_schema, {})


def test_every_client_has_its_judge() -> None:
    assert {*clients()} == {*schemas.DIALECTS, "bedrock_converse"}


def test_a_right_answer_is_found_right() -> None:
    assert schemas.of_answer("openai_chat", told(COMPLETION)) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"object": "completion"}, "object"),
        ({"created": "1"}, "created"),
        ({"surplus": 1}, "surplus"),
        ({"choices": [{**CHOICE, "finish_reason": "end_turn"}]}, "choices[0].finish_reason"),
        ({"usage": {"prompt_tokens": 1}}, "usage.completion_tokens"),
    ],
)
def test_a_wrong_answer_is_found_by_its_path(change: dict[str, object], path: str) -> None:
    assert path in {at for at, _ in schemas.of_answer("openai_chat", told({**COMPLETION, **change}))}


def test_an_event_by_another_name_is_found() -> None:
    body = b'event: message_start\ndata: {"type":"message_stop"}\n\n'
    assert schemas.of_answer("anthropic_messages", told(body, kind="text/event-stream"))


def test_events_of_responses_that_are_miscounted_are_found() -> None:
    events = [msgspec.json.encode({**DELTA, "sequence_number": number}) for number in (0, 2)]
    body = b"".join(b"event: response.output_text.delta\ndata: %b\n\n" % event for event in events)
    found = schemas.of_answer("openai_responses", told(body, kind="text/event-stream"))
    assert [path for path, _ in found] == ["sequence_number"]


def test_what_botocore_would_say_otherwise_is_found() -> None:
    asked = Asked(b"POST /model/m/converse HTTP/1.1\r\n\r\n", b'{"messages":[],"surplus":1}')
    assert schemas.of_request("bedrock_converse", asked)


@pytest.mark.parametrize("vendor", [name for name in vendors() if name in schemas.DIALECTS])
def test_scripted_vendors_say_what_their_vendor_publishes(vendor: str) -> None:
    """Else the matrix would show that we can read what nobody says."""
    for feature in FEATURES.values():
        (step,) = vendors()[vendor].whole(feature.answer)
        body = step.partition(b"\r\n\r\n")[2]
        assert schemas.of_answer(vendor, told(body)) == []
        events = told(b"".join(vendors()[vendor].pieces(feature.answer)), kind="text/event-stream")
        assert schemas.of_answer(vendor, events) == []


def test_bedrocks_frames_are_held_against_their_shapes() -> None:
    answer = FEATURES["parallel tools"].answer
    frames = b"".join(vendors()["bedrock_converse"].pieces(answer))
    kind = "application/vnd.amazon.eventstream"
    assert schemas.of_answer("bedrock_converse", told(frames, kind=kind)) == []
    wrong = vendors()["bedrock_converse"]._event("messageStart", {"role": "assistant", "surplus": 1})
    assert schemas.of_answer("bedrock_converse", told(wrong, kind=kind))


def test_unions_tell_of_the_member_that_was_meant() -> None:
    event = {"type": "content_block_stop"}
    assert violations(event, schemas.DIALECTS["anthropic_messages"].event) == [
        ("index", "required, but missing")
    ]


def test_a_union_with_an_array_tells_what_is_wrong_inside() -> None:
    item = {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}", "parsed_arguments": None}
    found = violations({"model": "m", "input": [item]}, ResponseCreateParamsNonStreaming)
    assert found == [("input[0].parsed_arguments", "no such field")]
