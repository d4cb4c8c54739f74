"""Decisions by IAM's rules: nothing is allowed by default, a denial wins, every layer must allow."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import BadRequest, Forbidden
from freehold.core.policy import ALLOW_ALL, Policy, Principal, authorize, evaluate, given_on


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


_GLOBS = st.text("ab*?", min_size=1, max_size=6)
_STATEMENTS = st.builds(
    lambda effect, resource: {"Effect": effect, "Action": "x:Y", "Resource": resource},
    st.sampled_from(["Allow", "Allow", "Deny"]),
    _GLOBS,
)


@given(
    st.lists(_STATEMENTS, max_size=3), st.lists(_STATEMENTS, max_size=3), st.lists(st.text("ab*", max_size=8))
)
def test_nobody_is_given_more_than_who_gives_may_do(
    own: list[dict[str, Any]], wanted: list[dict[str, Any]], resources: list[str]
) -> None:
    who = Principal("acme", "service", "key_1", (ALLOW_ALL, policy(*own)))
    try:
        given = given_on(who, policy(*wanted))
    except BadRequest:
        return
    for resource in resources:
        if evaluate(given, "x:Y", resource) == "allowed":
            authorize(who, "x:Y", resource)


@pytest.mark.parametrize(
    ("own", "wanted", "within"),
    [
        ("model/*", "model/openai/*", True),
        ("model/openai/*", "model/openai/gpt-?", True),
        ("model/openai/*", "model/openai/*", True),
        ("model/openai/*", "model/*", False),
        ("model/openai/*", "*", False),
        ("model/openai/gpt-?", "model/openai/gpt-*", False),
        ("model/openai/gpt-4?", "model/openai/gpt-4o", True),
    ],
)
def test_what_is_given_on_is_within_a_pattern_of_ones_own(own: str, wanted: str, within: bool) -> None:
    denied = {"Effect": "Deny", "Action": "model:*", "Resource": "*/secret"}
    who = Principal("acme", "service", "key_1", (policy(ALLOW | {"Resource": own}, denied),))
    asked = policy(ALLOW | {"Resource": wanted})
    if not within:
        with pytest.raises(BadRequest, match=r"policy.Statement\[0\]: allows model:Call on "):
            given_on(who, asked)
        return
    assert given_on(who, asked) == policy(ALLOW | {"Resource": wanted}, denied)
    everybody = Principal("acme", "service", "key_2", (ALLOW_ALL,))
    assert given_on(everybody, asked) == asked


def test_a_policy_that_would_take_for_ever_to_compare_is_refused_at_once() -> None:
    who = Principal("acme", "service", "key_1", (policy(ALLOW),))
    many = policy(ALLOW | {"Action": ["model:Call"] * 10_000, "Resource": ["model/openai/*"] * 10_000})
    with pytest.raises(BadRequest, match="too large to be held against the policy of service key_1"):
        given_on(who, many)


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
