"""Decisions by IAM's rules: nothing is allowed by default, a denial wins, every layer must allow."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import Forbidden
from freehold.core.policy import ALLOW_ALL, Policy, Principal, authorize, evaluate


def policy(*statements: dict[str, Any]) -> Policy:
    return msgspec.convert({"Version": "2012-10-17", "Statement": list(statements)}, Policy)


ALLOW = {"Effect": "Allow", "Action": "model:Call", "Resource": "model/openai/*"}


@pytest.mark.parametrize(
    ("statements", "action", "resource", "expected"),
    [
        ([], "model:Call", "model/openai/x", "implicitly_denied"),
        ([ALLOW], "model:Call", "model/openai/x", "allowed"),
        ([ALLOW], "MODEL:call", "model/openai/x", "allowed"),
        ([ALLOW], "model:Call", "model/OPENAI/x", "implicitly_denied"),
        ([ALLOW], "model:Calls", "model/openai/x", "implicitly_denied"),
        ([ALLOW], "model:Call", "model/anthropic/x", "implicitly_denied"),
        (
            [ALLOW, ALLOW | {"Effect": "Deny", "Resource": "*/x"}],
            "model:Call",
            "model/openai/x",
            "explicitly_denied",
        ),
        ([ALLOW | {"Effect": "Deny"}, ALLOW], "model:Call", "model/openai/x", "explicitly_denied"),
        ([ALLOW | {"Action": ["a:B", "model:*"]}], "model:Call", "model/openai/x", "allowed"),
        ([ALLOW | {"Resource": ["no", "model/open??/x"]}], "model:Call", "model/openai/x", "allowed"),
        ([ALLOW | {"Resource": "model/open?/x"}], "model:Call", "model/openai/x", "implicitly_denied"),
    ],
)
def test_statements_decide(
    statements: list[dict[str, Any]], action: str, resource: str, expected: str
) -> None:
    assert evaluate(policy(*statements), action, resource) == expected


@given(st.text("ab*?", max_size=12), st.text("ab*?", max_size=12))
def test_wildcards_mean_what_a_glob_means(pattern: str, text: str) -> None:
    """Regular expressions as the judge; `*` in the text is a letter like any other."""
    expected = re.fullmatch(
        "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern), text
    )
    found = evaluate(policy({"Effect": "Allow", "Action": "*", "Resource": pattern or "-"}), "x:Y", text)
    assert (found == "allowed") == bool(expected if pattern else text == "-")


def test_a_hostile_pattern_is_decided_at_once() -> None:
    slow = policy({"Effect": "Allow", "Action": "*", "Resource": "a*" * 200 + "b"})
    assert evaluate(slow, "x:Y", "a" * 5000) == "implicitly_denied"


def test_every_layer_must_allow() -> None:
    key = Principal("t", "user", "ann", (policy(ALLOW),))
    agent = key.narrowed("agent", "clerk", policy(ALLOW | {"Resource": "model/*/small"}))
    authorize(agent, "model:Call", "model/openai/small")
    for resource in ("model/openai/large", "model/anthropic/small"):
        with pytest.raises(Forbidden, match="clerk may not model:Call"):
            authorize(agent, "model:Call", resource)
    wider = key.narrowed("agent", "clerk", ALLOW_ALL)
    with pytest.raises(Forbidden):
        authorize(wider, "model:Call", "model/anthropic/small")


def test_who_has_no_policy_may_do_nothing() -> None:
    with pytest.raises(Forbidden, match="has no policy"):
        authorize(Principal("t", "user", "nobody", ()), "model:Call", "model/openai/x")


@pytest.mark.parametrize("field", ["Condition", "NotAction", "NotResource", "Principal"])
def test_what_is_not_obeyed_is_refused_and_not_half_obeyed(field: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        policy(ALLOW | {field: "x"})
