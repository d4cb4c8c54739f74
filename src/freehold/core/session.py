"""A session is its log. Here are the facts that a log can hold.

Facts are in the past tense, hold only what is new (history is linear), and never change once written. `SessionState` is a
fold (session_state.py). What stands in the logs of other kinds is in response_facts.py. What to do next is not decided here
(runtime/decide.py), nor is anything stored (store/).
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Final, Literal, TypeAlias, assert_never, cast

import msgspec
from msgspec import Struct

from freehold.core.messages import (
    NO_USAGE,
    AnswerPart,
    Media,
    StopReason,
    Text,
    Usage,
)
from freehold.core.resources import CustomTool, Effect, WhenBusy
from freehold.core.response_facts import (
    OF_OTHER_KINDS,
    ConversationEvent,
    ResponseAsked,
    ResponseEnded,
    ResponseEvent,
)

SessionStatus: TypeAlias = Literal["idle", "running", "waiting", "paused", "cancelled"]
"""`running`: a worker has something to do. `idle`: waits for input. `waiting`: in the middle of a turn, for people, clients, other
sessions or a time; it holds nothing but its row. `paused`: someone stopped it for now. `cancelled`: ended for good by someone."""


class Parent(Struct, frozen=True):
    """The session, and its tool call, that this one works for."""

    session_id: str
    call_id: str


class SessionSetup(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What one session has beyond its agent's declaration, or in its place: given once, when it is created. None is the agent's own.

    `environment_version` is the one that it was created in; while the environment is there, its sessions see it as it is now.
    """

    environment: str | None = None
    environment_version: int = 0
    instructions: str | None = None
    custom_tools: tuple[CustomTool, ...] | None = None
    cost_max_usd: str | None = None


class SessionStarted(Struct, frozen=True, tag="session_started", omit_defaults=True, kw_only=True):
    """First, once. `model` overrides the agent's own. `depth` is 0 without a parent. `labels` hold for all that it is asked and says:
    where they say, and nowhere else, may it go (gateway/residency.py). `when_busy`: what becomes of input while a turn runs.
    """

    agent: str
    agent_version: int
    model: str | None = None
    title: str = ""
    by: str = ""
    parent: Parent | None = None
    depth: int = 0
    labels: tuple[str, ...] = ()
    setup: SessionSetup | None = None
    when_busy: WhenBusy = "queue"


class SessionForked(Struct, frozen=True, tag="session_forked", omit_defaults=True, kw_only=True):
    """What stands before was shared with the session `origin`, up to its event `origin_seq`; from here on each goes its own way.

    `by` is whose rights it acts with from here on. `edited_seq` is the origin's event in whose place the next one stands here.
    """

    origin: str
    origin_seq: int
    model: str | None = None
    by: str = ""
    edited_seq: int | None = None


class UserSpoke(Struct, frozen=True, tag="user_spoke", omit_defaults=True, kw_only=True):
    """Input. May come at any time; while a turn runs it is queued and taken up by the next model call."""

    content: tuple[Text | Media, ...]
    by: str = ""


class CancelRequested(Struct, frozen=True, tag="cancel_requested", omit_defaults=True, kw_only=True):
    """`turn`: stop what runs now, the session stays. `session`: that, and for good."""

    scope: Literal["turn", "session"] = "turn"
    by: str = ""
    reason: str = ""


class PauseRequested(Struct, frozen=True, tag="pause_requested", omit_defaults=True, kw_only=True):
    """What runs is finished, nothing new begins. Input is taken and kept."""

    by: str = ""
    reason: str = ""


class ResumeRequested(Struct, frozen=True, tag="resume_requested", omit_defaults=True, kw_only=True):
    by: str = ""


class TurnStarted(Struct, frozen=True, tag="turn_started", omit_defaults=True, kw_only=True):
    turn: int


class ModelAnswered(Struct, frozen=True, tag="model_answered", omit_defaults=True, kw_only=True):
    """`seen_seq` is the last event that the model was shown: input that came later stands after this answer.

    `model` is what was asked for, `served_by` who answered (`provider/name`). `call_id` is the call's record. `usage` and
    `cost_pico` include what failed attempts before it used. The ids of tool calls are unique within the session: the runtime
    sees to that before it records. `is_language_model` is false where declared rules answered. `client_calls` are the calls that the
    client runs itself, `ask_calls` those that people are asked about first. `request_digest` is that of the request that was
    answered (runtime/digests.py): a replay shows by it that it asks the same. `equipment` is the digest of the block that says what
    the model was asked with, its messages aside. `limit` is one in money that left too little for a longer answer, which was cut off there.
    """

    seen_seq: int
    model: str
    served_by: str
    content: tuple[AnswerPart, ...]
    stop_reason: StopReason
    usage: Usage = Usage()
    cost_pico: int = 0
    priced: bool = True
    call_id: str = ""
    duration_ms: float = 0.0
    first_event_ms: float | None = None
    is_language_model: bool = True
    client_calls: tuple[str, ...] = ()
    ask_calls: tuple[str, ...] = ()
    request_digest: str = ""
    equipment: str = ""
    limit: str | None = None


class ModelFailed(Struct, frozen=True, tag="model_failed", omit_defaults=True, kw_only=True):
    """After all retries. `code` is an error's code from core/errors.py, or `cancelled` where someone stopped the call.

    `attempts` is 0 where the model could not even be asked: a tool did not open, the agent is gone, its owner lost the right.
    `limit` is one in money that left too little for the call, so that nobody was asked.
    """

    seen_seq: int
    model: str
    code: str
    message: str
    attempts: int = 1
    cost_pico: int = 0
    usage: Usage = Usage()
    duration_ms: float = 0.0
    limit: str | None = None


class ToolStarted(Struct, frozen=True, tag="tool_started", omit_defaults=True, kw_only=True):
    """The claim: written before the tool runs. `key` is the idempotency key handed to the tool, the same on every attempt."""

    call_id: str
    tool: str
    function: str
    arguments: str
    effect: Effect
    key: str
    attempt: int = 1


class KeptResult(Struct, frozen=True, omit_defaults=True):
    """What was too large to be shown whole. `handle` names it within its session, those that it works for, and their forks."""

    handle: str
    size_bytes: int
    media_type: str = "text/plain"


class ToolFinished(Struct, frozen=True, tag="tool_finished", omit_defaults=True, kw_only=True):
    """The commit. A failure is an answer for the model: `failed`, with a `code` and the message as content. Where a part of it was
    too large, it is `kept`, and `content` has its beginning and its handle."""

    call_id: str
    content: tuple[Text | Media, ...]
    failed: bool = False
    code: str | None = None
    duration_ms: float = 0.0
    cost_pico: int = 0
    kept: tuple[KeptResult, ...] = ()


class ToolOutcomeUnknown(Struct, frozen=True, tag="tool_outcome_unknown", omit_defaults=True, kw_only=True):
    """An irreversible tool was running when its worker died: it may have happened. Told to the model; never run again."""

    call_id: str
    message: str


class AwaitsApproval(Struct, frozen=True, tag="approval", omit_defaults=True, kw_only=True):
    """People decide. `binding` is all that their word is good for (see approval_binding); `level` counts escalations.

    `approvers` are as in core.resources.Approval, none: whoever may approve in this tenant. `quorum` of them must allow; one denial denies.
    """

    tool: str
    version: int
    function: str
    arguments: str
    binding: str
    approvers: tuple[str, ...] = ()
    quorum: int = 1
    level: int = 0


class AwaitsClient(Struct, frozen=True, tag="client"):
    """The client runs the tool itself and gives the result."""


class AwaitsTimer(Struct, frozen=True, tag="timer"):
    """Nothing but time."""


class AwaitsEvent(Struct, frozen=True, tag="event", omit_defaults=True, kw_only=True):
    """Something outside will report `event`, about `correlation`, or under `token`, which says nothing of the session."""

    token: str
    event: str = ""
    correlation: str = ""


class AwaitsSession(Struct, frozen=True, tag="session", omit_defaults=True, kw_only=True):
    """A subagent's session works on it. `agent` is whose. `cost_max_pico` is set aside for it of what this one may cost, where that is
    limited. `task` is what it was told; where it stands already, it is left out."""

    session_id: str
    agent: str = ""
    cost_max_pico: int | None = None
    task: str = ""


class AwaitsPlace(Struct, frozen=True, tag="place", kw_only=True):
    """As many runs of the tool as there may be are under way. Only ever in SessionWaits: whose turn it is, the log does not know."""

    tool: str


Awaits: TypeAlias = AwaitsApproval | AwaitsClient | AwaitsTimer | AwaitsEvent | AwaitsSession | AwaitsPlace


class CallAwaited(Struct, frozen=True, tag="call_awaited", omit_defaults=True, kw_only=True):
    """A tool call is out of our hands, until someone settles it or `until` (UTC) has come. A later one replaces it."""

    call_id: str
    awaits: Awaits
    until: datetime | None = None


class ApprovalDecided(Struct, frozen=True, tag="approval_decided", omit_defaults=True, kw_only=True):
    """One person's word on what `binding` says. With `arguments`, these instead of the model's: `binding` is then theirs, and
    what others said of the former arguments counts no more. `person` is whose key `by` is, where it is somebody's: nobody counts twice by
    having two."""

    call_id: str
    binding: str
    allow: bool
    by: str
    person: str = ""
    reason: str = ""
    arguments: str | None = None


class ResultGiven(Struct, frozen=True, tag="result_given", omit_defaults=True, kw_only=True):
    """The result of a call that was not ours to run: `source` gave it. Ignored where none is awaited. `agent`: of a session, whose. `kept`
    as in ToolFinished. `elsewhere_pico` is what was spent on it on a bill of its own: here, limits count it, and nothing else."""

    call_id: str
    source: Literal["client", "event", "session"]
    content: tuple[Text | Media, ...]
    failed: bool = False
    by: str = ""
    cost_pico: int = 0
    agent: str = ""
    kept: tuple[KeptResult, ...] = ()
    elsewhere_pico: int = 0


class ThreadCall(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A call of a subagent's for which somebody has to act. `client`: the client runs it; otherwise it needs approval. `known`: told before."""

    call_id: str
    name: str
    arguments: str
    client: bool = False
    known: bool = False


class ThreadAsks(Struct, frozen=True, tag="thread_asks", omit_defaults=True, kw_only=True):
    """`session_id`, which works for this one, however deep below, waits for somebody to act on all of `calls`; with none, it waits no more."""

    session_id: str
    agent: str
    calls: tuple[ThreadCall, ...] = ()


class ThreadWaits(Struct, frozen=True):
    """Which of a subagent's calls somebody has to act on."""

    session_id: str
    call_ids: tuple[str, ...]


class SessionWaits(Struct, frozen=True, tag="session_waits", omit_defaults=True, kw_only=True):
    """Nothing can be done until someone writes to the log, or `until` (UTC) has come. `calls` are open and awaited; `threads` are subagents that
    wait for somebody to act."""

    why: Literal["calls", "paused", "input"]
    calls: tuple[CallAwaited, ...] = ()
    until: datetime | None = None
    threads: tuple[ThreadWaits, ...] = ()


def asks(waits: SessionWaits | None) -> bool:
    """Whether somebody has to act before it goes on. In the database: session_asks (store/migrations/0015_webhooks.sql)."""
    return waits is not None and bool(waits.threads or asked_of(waits))


def asked_of(waits: SessionWaits) -> tuple[str, ...]:
    """The session's own calls for which somebody has to act."""
    return tuple(one.call_id for one in waits.calls if isinstance(one.awaits, AwaitsApproval | AwaitsClient))


class Compacted(Struct, frozen=True, tag="compacted", omit_defaults=True, kw_only=True):
    """From here on a model is shown `summary` (nothing, where it is empty) in place of all messages up to event `up_to_seq`. They
    stay in the log. `tokens_before` and `tokens_after` are estimates of what is shown."""

    up_to_seq: int
    summary: str = ""
    model: str = ""
    usage: Usage = Usage()
    cost_pico: int = 0
    tokens_before: int = 0
    tokens_after: int = 0


TurnOutcome: TypeAlias = Literal["completed", "limit_reached", "failed", "cancelled", "refused"]


class TurnFinished(Struct, frozen=True, tag="turn_finished", omit_defaults=True, kw_only=True):
    """`limit` names the limit that was reached: a field of core.resources.Limits."""

    outcome: TurnOutcome
    message: str = ""
    limit: str | None = None
    code: str | None = None


AgentEvent: TypeAlias = (
    SessionStarted
    | SessionForked
    | UserSpoke
    | CancelRequested
    | PauseRequested
    | ResumeRequested
    | TurnStarted
    | ModelAnswered
    | ModelFailed
    | ToolStarted
    | ToolFinished
    | ToolOutcomeUnknown
    | CallAwaited
    | ApprovalDecided
    | ResultGiven
    | ThreadAsks
    | SessionWaits
    | Compacted
    | TurnFinished
)
SessionEvent: TypeAlias = AgentEvent | ResponseEvent | ConversationEvent
"""What a log of any kind may hold."""


Input: TypeAlias = (
    UserSpoke | CancelRequested | PauseRequested | ResumeRequested | ApprovalDecided | ResultGiven
)
"""What people and clients say, at any time."""

FromOutside: TypeAlias = Input | ThreadAsks
"""What may come at any time; all else is written by the one worker that holds the lease."""


class Recorded(Struct, frozen=True):
    """An event in its place. `seq` is 1, 2, 3 ... without gaps within its session; `at` is UTC, by the database's clock."""

    seq: int
    at: datetime
    event: SessionEvent


class RowChange(Struct, frozen=True):
    """What some events mean for the session's row, which is only a projection of the log kept for lists and for workers.

    `status` is None where they leave it as it is. `waits` belongs to the statuses `waiting` and `paused`.
    """

    status: SessionStatus | None
    usage: Usage
    cost_pico: int
    waits: SessionWaits | None = None


def row_change(events: Iterable[SessionEvent]) -> RowChange:
    """Cancelling a session for good is the last word (the store sees to it).

    A turn that finishes while further input is queued is followed at once by TurnStarted in the same append, which makes
    the row `running` again; hence the order of events matters.
    """
    status: SessionStatus | None = None
    usage, cost = NO_USAGE, 0
    waits: SessionWaits | None = None
    for event in events:
        # The frequent ones first, and by their type: a match asks each class in turn, and a struct's takes 0.3 us to say no.
        if type(event) is ToolFinished:
            status, cost = "running", cost + event.cost_pico
            continue
        if type(event) is ModelAnswered:
            usage, cost = usage.plus(event.usage), cost + event.cost_pico
            continue
        if type(event) in _AT_WORK:
            status = "running"
            continue
        if type(event) in OF_OTHER_KINDS:
            status = _kept_status(event) or status
            continue
        event = cast("AgentEvent", event)
        match event:
            case SessionStarted() | SessionForked():
                pass
            case TurnFinished():
                status = "cancelled" if event.outcome == "cancelled" and event.code == "session" else "idle"
            case ToolFinished() | ResultGiven():
                status, cost = "running", cost + event.cost_pico
            case ModelAnswered() | ModelFailed() | Compacted():
                usage, cost = usage.plus(event.usage), cost + event.cost_pico
            case (
                ToolStarted()
                | UserSpoke()
                | TurnStarted()
                | CancelRequested()
                | PauseRequested()
                | ResumeRequested()
                | ApprovalDecided()
                | CallAwaited()
                | ToolOutcomeUnknown()
                | ThreadAsks()
            ):
                status = "running"
            case SessionWaits():
                status, waits = _WAITS_AS[event.why], event
            case _ as unreachable:
                assert_never(unreachable)
    return RowChange(status, usage, cost, waits if status in ("waiting", "paused") else None)


_AT_WORK: Final[frozenset[type]] = frozenset((ToolStarted, TurnStarted, UserSpoke))


def _kept_status(event: SessionEvent) -> SessionStatus | None:
    match event:
        case ResponseEnded(status=status):
            return "cancelled" if status == "cancelled" else "idle"
        case ResponseAsked(request=request):
            return "running" if request else None
        case _:
            return None


_WAITS_AS: Final[dict[str, SessionStatus]] = {"calls": "waiting", "paused": "paused", "input": "idle"}


def approval_binding(tool: str, version: int, function: str, arguments: str) -> str:
    """What an approval is good for: this function of this version of the tool's declaration (its approval rule included) with
    these arguments, however their JSON is laid out. Anything else needs a new one."""
    canonical = msgspec.json.encode(
        [tool, version, function, msgspec.json.decode(arguments or "{}")], order="sorted"
    )
    return hashlib.sha256(canonical).hexdigest()
