"""What can be declared: agents, tools, rules, providers. A template is a list of these; the store keeps every version.

Unknown fields are refused. Nothing here holds a secret's value: only references (`env:NAME`, `file:PATH`).
"""

import re
from typing import Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta, Struct, field

from freehold.core.allowances import Budget, Limit
from freehold.core.context import Context
from freehold.core.contracts import Capacity, PriceBook
from freehold.core.environments import Environment
from freehold.core.errors import BadRequest
from freehold.core.policy import Policy
from freehold.core.retention import Retention
from freehold.core.routes import CallTimeouts, Drain, Route
from freehold.core.schedules import Deployment
from freehold.core.webhooks import Webhook

NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
SECRET: Final = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)")

WhenBusy: TypeAlias = Literal["queue", "interrupt", "reject"]
"""What becomes of a message that comes while its session is busy: the next model call takes it up; what runs is broken off, as by an
interrupt, and a turn of its own answers it; it is refused."""

CONCURRENCY_MAX: Final = 100_000
"""More runs of one tool at once than any installation has workers for."""

Effect: TypeAlias = Literal["pure", "idempotent", "compensatable", "irreversible"]


class Limits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Per turn, and `session_...` over all turns. A turn that reaches one ends with `limit_reached`, naming it; the session stays
    and, unless the limit was the session's, can go on.

    `cost_max_usd` is a decimal number of US dollars, as text to stay exact (`"0.50"`); None is no limit of the turn's own. Time
    spent waiting for people, clients or timers does not count. `repeats_max`: how often in a turn the same call with the same
    arguments may give the same result before that is taken for a loop. `sessions_running_max`: how many of the agent's sessions
    may be carried forward at once, by all workers together, as the agent's current version says it; the others wait their turn.
    """

    steps_max: int = 50
    tokens_max: int = 1_000_000
    wall_time_s_max: float = 900.0
    cost_max_usd: str | None = None
    tool_calls_parallel_max: int = 8
    repeats_max: int = 12
    session_steps_max: int | None = None
    session_tokens_max: int | None = None
    session_cost_max_usd: str | None = None
    session_wall_time_s_max: float | None = None
    sessions_running_max: int | None = None


class Escalation(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Who is asked next, and for how long, where nobody decided in time. Without a `quorum` of its own it has the rule's, or as many as are
    asked, where they are fewer."""

    approvers: tuple[str, ...] = ()
    quorum: int | None = None
    deadline_s: float = 86_400.0


class Approval(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """People are asked before a tool runs. `functions` and `effects` narrow what for: None is all.

    `approvers` are ids of keys, `user/NAME` or `team/NAME` (whose keys, whichever); none: whoever may `session:Approve`. `quorum` of them must
    allow, two keys of a user's counting once; one denial denies. After `deadline_s` and all escalations, `on_expiry`: `tell` the model that nobody decided (which is no denial), `deny`
    or `allow`.
    """

    functions: tuple[str, ...] | None = None
    effects: tuple[Effect, ...] | None = None
    approvers: tuple[str, ...] = ()
    quorum: int = 1
    deadline_s: float = 86_400.0
    escalations: tuple[Escalation, ...] = ()
    on_expiry: Literal["tell", "deny", "allow"] = "tell"


class CustomTool(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A function that an agent's clients run themselves, declared with the agent. `input_schema` is JSON Schema of an object.

    What several agents share is a tool of the kind `client` instead.
    """

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    description: str = ""
    input_schema: dict[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


class Agent(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="agent",
    tag_field="kind",
):
    """`model` is `provider/name` or `auto` (the best that is found: a key, a local server, else the agent's `rules`).

    `policy` (IAM's JSON) bounds what its sessions may do, and those of all agents that work for it; none bounds nothing. `labels`
    (`eu`) say where its sessions' requests may go, and nowhere else. `title` is its name for people, where that is another. `when_busy` holds
    for its sessions, unless they say otherwise.
    """

    name: str
    title: str = ""
    model: str = "auto"
    instructions: str = ""
    description: str = ""
    tools: tuple[str, ...] = ()
    custom_tools: Annotated[tuple[CustomTool, ...], Meta(max_length=128)] = ()
    rules: str | None = None
    limits: Limits = Limits()
    context: Context = Context()
    temperature: float | None = None
    tokens_max: int | None = None
    reasoning_effort: str | None = None
    policy: Policy | None = None
    metadata: dict[str, str] = {}
    labels: tuple[str, ...] = ()
    when_busy: WhenBusy = "queue"


class Tool(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="tool",
    tag_field="kind",
):
    """A declared instance of a tool kind (`type`: sql, http, kv, objects, function ...), configured by `config`.

    `effect` overrides the kind's own judgement for all its functions; `functions`, when given, offers only these. `approval`:
    people are asked first. `concurrency_max`: how many of its runs there may be at once, by all workers together, as its current
    version says it; the others wait their turn.
    """

    name: str
    type: str
    description: str = ""
    config: dict[str, Any] = {}
    effect: Effect | None = None
    functions: tuple[str, ...] | None = None
    timeout_s: float = 30.0
    approval: Approval | None = None
    concurrency_max: int | None = None


class RuleStep(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One tool call of a rule. `tool` is the function's name as a model sees it (`inventory_get`).

    Strings in `arguments` are templates over the variables and `results` of earlier steps; one that is a single `{{ ... }}`
    gives that value with its type, and `{$json: template}` what the template writes as JSON. A step waits for the results
    that it speaks of; steps that don't wait run side by side. `when` is an expression: the step is left out where it is
    false. `for_each` is one that gives a list: the tool is called for each `item`. The result is `results.<save_as>` (the
    tool's name without it).
    """

    tool: str
    arguments: dict[str, Any] = {}
    save_as: str | None = None
    when: str | None = None
    for_each: str | None = None


class Rule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The first rule answers whose `when` (RE2, case does not matter) is found in what the user said last, and whose `needs`
    are known: said now, said in an earlier turn, or in `defaults`. Named groups of `when` become variables.
    """

    name: str
    when: str
    needs: tuple[str, ...] = ()
    steps: tuple[RuleStep, ...] = ()
    answer: str = ""
    defaults: dict[str, str] = {}


class Rules(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="rules",
    tag_field="kind",
):
    """What the `rules` provider answers with, as model `rules/<name>`: no language model, deterministic.

    Variables are found anywhere in what is said: `patterns` by a regular expression, `vocabulary` by spoken words
    (variable -> words -> value, so that "Shanghai" gives dc = SHA). `otherwise` is the answer where no rule fits. A turn
    that only names other values ("and in Rotterdam?") asks the question before it again with them.
    """

    name: str
    rules: tuple[Rule, ...]
    otherwise: str = "None of the declared rules matches this question."
    patterns: dict[str, str] = {}
    vocabulary: dict[str, dict[str, str]] = {}


class Provider(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="provider",
    tag_field="kind",
):
    """Where models live. `type` names the adapter (openai, anthropic ...); `base_url` as that vendor's SDK takes it.

    `wire` is the one by which all its models are asked, where the address speaks several (`openai_chat`, `openai_responses`);
    without it, the catalog says which model is asked by which. `regions` are those to which what is sent there may go; `labels` are
    your own. `timeouts` hold for every call.
    """

    name: str
    type: str
    base_url: str | None = None
    api_key: str | None = None
    models: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    wire: str | None = None
    regions: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    timeouts: CallTimeouts | None = None


Resource: TypeAlias = (
    Agent
    | Tool
    | Rules
    | Provider
    | PriceBook
    | Capacity
    | Route
    | Drain
    | Limit
    | Budget
    | Environment
    | Deployment
    | Retention
    | Webhook
)
Kind: TypeAlias = Literal[
    "agent",
    "tool",
    "rules",
    "provider",
    "price_book",
    "capacity",
    "route",
    "drain",
    "limit",
    "budget",
    "environment",
    "deployment",
    "retention",
    "webhook",
]
KINDS: Final[tuple[Kind, ...]] = (
    "provider", "rules", "route", "tool", "agent", "environment", "price_book", "capacity", "drain", "limit", "budget",
    "deployment", "retention", "webhook",
)  # fmt: skip
"""In the order in which they may refer to each other: later ones name earlier ones."""


def kind_of(resource: Resource) -> Kind:
    match resource:
        case Agent():
            return "agent"
        case Tool():
            return "tool"
        case Rules():
            return "rules"
        case Provider():
            return "provider"
        case PriceBook():
            return "price_book"
        case Capacity():
            return "capacity"
        case Limit():
            return "limit"
        case Budget():
            return "budget"
        case Route():
            return "route"
        case Drain():
            return "drain"
        case Environment():
            return "environment"
        case Deployment():
            return "deployment"
        case Retention():
            return "retention"
        case Webhook():
            return "webhook"


def check_name(name: str, *, field: str = "name") -> str:
    if not NAME.fullmatch(name):
        raise BadRequest(
            f"expected 1-63 of a-z, 0-9, '-' and '_', beginning and ending with a letter or digit, got {name[:80]!r}",
            field=field,
        )
    return name
