"""Who may do what: principals, statements in IAM's JSON, and the one decision.

Denial is the default, an explicit Deny wins, and every layer must allow (permissions of key, agent and subagent intersect).
Grammar and evaluation: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html.
Not here yet: Condition, Principal, NotAction, NotResource; a policy that has them is refused, not half obeyed.
"""

from functools import lru_cache
from typing import Literal, TypeAlias

from msgspec import Struct

from freehold.core.errors import Forbidden
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
def _matches(pattern: str, text: str) -> bool:
    """Glob with `*` and `?` only, linear in practice: backtracks to the last star alone."""
    i = j = 0
    star = mark = -1
    while i < len(text):
        if j < len(pattern) and (pattern[j] == "?" or (pattern[j] == text[i] and pattern[j] != "*")):
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


def allowed(principal: Principal, action: str, resource: str) -> bool:
    """For lists: what may not be done is left out of them."""
    try:
        authorize(principal, action, resource)
    except Forbidden:
        return False
    return True
