"""What is wrong with input is told by its path, in words, with the near miss."""

from datetime import date, datetime

import msgspec
import pytest

from freehold.core.errors import BadRequest
from freehold.core.resources import Agent
from freehold.core.routes import Route
from freehold.core.validation import convert, decode, near

DECODER = msgspec.json.Decoder(Agent)


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        ({"kind": "agent", "name": "a", "modle": "x"}, "modle", "did you mean 'model'"),
        ({"kind": "agent"}, "name", "required, but missing"),
        ({"kind": "agent", "name": 5}, "name", "expected 'str', got 'int'"),
        ({"kind": "agent", "name": "a", "limits": {"steps_max": "x"}}, "limits.steps_max", "expected 'int'"),
        ({"kind": "agent", "name": "a", "limits": {"steps": 1}}, "limits.steps", "unknown field 'steps'"),
        (
            {"kind": "agent", "name": "a", "limits": {"steps": 1}},
            "limits.steps",
            "known: steps_max, tokens_max",
        ),
        ({"kind": "agent", "name": "a", "tools": ["x", 1]}, "tools[1]", "expected 'str'"),
        (
            {"kind": "agent", "name": "a", "when_busy": "wait"},
            "when_busy",
            "expected one of interrupt, queue, reject; got 'wait'",
        ),
    ],
)
def test_the_path_and_what_was_expected(value: object, field: str, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        convert(value, Agent)
    assert refused.value.field == field
    assert words in refused.value.message


def test_a_time_that_is_none_is_answered_with_one() -> None:
    with pytest.raises(BadRequest, match="expected a time like 2026-11-21T04:36:00Z"):
        convert("yesterday", datetime)
    with pytest.raises(BadRequest, match="expected a day like 2026-11-21"):
        convert("2026-13-01", date)


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        ({"strategy": "cheapst"}, "strategy", "got 'cheapst' (did you mean 'cheapest'?)"),
        (
            {"models": [{"model": "a/b", "wieght": 1}]},
            "models[0].wieght",
            "(did you mean 'weight'?); known: model,",
        ),
        ({"cache": {"scope": "all"}}, "cache.scope", "expected one of key, team, tenant, user; got 'all'"),
    ],
)
def test_deep_inside_the_known_are_told_too(value: dict[str, object], field: str, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        convert({"kind": "route", "name": "a", "models": ["a/b"], **value}, Route)
    assert refused.value.field == field
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "an empty body"),
        (b"{", "expected JSON"),
        (b"\xff\xfe", "expected"),
        (b"[" * 100_000, "expected"),
    ],
)
def test_what_is_no_json_is_told_so(body: bytes, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        decode(body, DECODER)


def test_near_misses_are_only_named_when_they_are_near() -> None:
    assert near("agnt", ["agent", "tool"]) == " (did you mean 'agent'?)"
    assert near("xyz", ["agent", "tool"]) == ""
