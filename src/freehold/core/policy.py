"""Who may do what: principals, statements in IAM's JSON, and the one decision.

Denial is the default, an explicit Deny wins, and every layer must allow (permissions of key, agent and subagent intersect).
Grammar and evaluation: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html.
Not here yet: Condition, Principal, NotAction, NotResource; a policy that has them is refused, not half obeyed.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Final, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from freehold.core.errors import BadRequest, Forbidden
from freehold.core.records import NOBODY, Account

PrincipalKind: TypeAlias = Literal["user", "service", "agent", "session"]


class Statement(Struct, frozen=True, forbid_unknown_fields=True, rename="pascal"):
    """`action` like `model:Call` or `session:*`; `resource` like `model/openai/gpt-5` or `*`. `*` and `?` are wildcards."""

    effect: Literal["Allow", "Deny"]
    action: str | tuple[str, ...]
    resource: str | tuple[str, ...] = "*"
    sid: str | None = None


class Policy(Struct, frozen=True, forbid_unknown_fields=True, rename="pascal"):
    statement: tuple[Statement, ...]
    version: str = "2012-10-17"
    id: str | None = None


COMPARED_MAX: Final = 5_000_000
"""Characters of one policy times those of another, against which it is held: a second or so where both are hostile."""

ALLOW_ALL = Policy(statement=(Statement("Allow", "*", "*"),))


class Principal(Struct, frozen=True):
    """Who acts. `layers` are the policies that must each allow: a key's own, then those of what acts in its name.

    `account` is whom its calls are put down to, `key_name` what its key is called. `residency` are labels (`eu`) that every place
    must meet to which its requests go (gateway/residency.py).
    """

    tenant: str
    kind: PrincipalKind
    id: str
    layers: tuple[Policy, ...]
    account: Account = NOBODY
    key_name: str | None = None
    residency: tuple[str, ...] = ()

    def narrowed(self, kind: PrincipalKind, id: str, policy: Policy) -> "Principal":  # noqa: A002
        """The same tenant acting through something (an agent, a session): can do what both may."""
        layers = (*self.layers, policy)
        return Principal(self.tenant, kind, id, layers, self.account, self.key_name, self.residency)


Decision: TypeAlias = Literal["allowed", "implicitly_denied", "explicitly_denied"]


@lru_cache(maxsize=4096)
def _matches(pattern: str, text: str, *, text_is_pattern: bool = False) -> bool:
    """Glob with `*` and `?` only, linear in practice: backtracks to the last star alone. `text_is_pattern`: where it comes out true,
    `pattern` matches all that `text` does.
    """
    i = j = 0
    star = mark = -1
    while i < len(text):
        one = j < len(pattern) and pattern[j] == "?" and not (text_is_pattern and text[i] == "*")
        if one or (j < len(pattern) and pattern[j] == text[i] and pattern[j] != "*"):
            i, j = i + 1, j + 1
        elif j < len(pattern) and pattern[j] == "*":
            star, mark, j = j, i, j + 1
        elif star >= 0:
            mark += 1
            i, j = mark, star + 1
        else:
            return False
    return all(rest == "*" for rest in pattern[j:])


def _any(patterns: str | tuple[str, ...], text: str) -> bool:
    if isinstance(patterns, str):
        return patterns in ("*", text) or _matches(patterns, text)
    for pattern in patterns:  # noqa: SIM110 - a generator costs more than the look-up
        if _matches(pattern, text):
            return True
    return False


@lru_cache(maxsize=4096)
def _lowered(patterns: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return patterns.lower() if isinstance(patterns, str) else tuple(one.lower() for one in patterns)


def evaluate(policy: Policy, action: str, resource: str) -> Decision:
    """Actions compare without regard to case, resources with it (as IAM does)."""
    decision: Decision = "implicitly_denied"
    lowered = action.lower()
    for statement in policy.statement:
        if _any(_lowered(statement.action), lowered) and _any(statement.resource, resource):
            if statement.effect == "Deny":
                return "explicitly_denied"
            decision = "allowed"
    return decision


def authorize(principal: Principal, action: str, resource: str) -> None:
    """The one enforcement point. Raises Forbidden, naming who, what and on which resource."""
    for policy in principal.layers:
        if policy is ALLOW_ALL:
            continue
        decision = evaluate(policy, action, resource)
        if decision != "allowed":
            why = "a policy denies it" if decision == "explicitly_denied" else "no policy allows it"
            raise Forbidden(f"{principal.kind} {principal.id} may not {action} on {resource}: {why}")
    if not principal.layers:
        raise Forbidden(f"{principal.kind} {principal.id} may not {action} on {resource}: it has no policy")


def given_on(principal: Principal, policy: Policy) -> Policy:
    """`policy`, for somebody whom the principal lets act: with all that it is denied itself. Raises BadRequest where it would allow more.

    What one statement allows must be within one statement of each of the principal's layers: rather too little than too much.
    """
    denials: list[Statement] = []
    for layer in principal.layers:
        if layer == ALLOW_ALL:
            continue
        if _size(policy) * _size(layer) > COMPARED_MAX:
            raise BadRequest(
                f"too large to be held against the policy of {principal.kind} {principal.id} (COMPARED_MAX)",
                field="policy",
            )
        may = [one for one in layer.statement if one.effect == "Allow"]
        denials += [one for one in layer.statement if one.effect == "Deny"]
        for place, statement in enumerate(policy.statement):
            for action, resource in _pairs(statement) if statement.effect == "Allow" else ():
                if not any(_holds(one, action, resource) for one in may):
                    raise BadRequest(
                        f"allows {action} on {resource}, which {principal.kind} {principal.id} may not itself",
                        field=f"policy.Statement[{place}]",
                    )
    further = tuple(one for one in denials if one not in policy.statement)
    return replace(policy, statement=(*policy.statement, *further)) if further else policy


def _size(policy: Policy) -> int:
    """Characters of all pairs of actions and resources."""
    size = 0
    for statement in policy.statement:
        actions, resources = _patterns(statement.action), _patterns(statement.resource)
        size += len(resources) * sum(map(len, actions)) + len(actions) * sum(map(len, resources))
    return size


def _patterns(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


def _pairs(statement: Statement) -> Iterator[tuple[str, str]]:
    return product(_patterns(statement.action), _patterns(statement.resource))


def _holds(outer: Statement, action: str, resource: str) -> bool:
    """All of it. Both may be patterns."""
    return any(
        _matches(may.lower(), action.lower(), text_is_pattern=True)
        and _matches(on, resource, text_is_pattern=True)
        for may, on in _pairs(outer)
    )


def allowed(principal: Principal, action: str, resource: str) -> bool:
    """For lists: what may not be done is left out of them."""
    try:
        authorize(principal, action, resource)
    except Forbidden:
        return False
    return True
