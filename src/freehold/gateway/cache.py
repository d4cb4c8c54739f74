"""Gateway: earlier answers, given again. Which requests may have one, under which key, and for how long they are kept here.

Two requests are the same where the heart's values of them are, whatever their wire, the order of their fields, or their whitespace. The
answer is kept as the heart's values too, so that any wire can tell it. Kept are whole answers only: none that failed, was cut short
or refused. Not here: how an answer is copied while it passes, and told again (cache_copies.py), and the database (store/answers.py).
Source of the directives: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw, Struct, structs

from freehold.core.answers import KeptAnswer, Likeness
from freehold.core.errors import BadRequest
from freehold.core.messages import ModelRequest, ModelResponse, ToolCall
from freehold.core.policy import ALLOW_ALL, Principal, evaluate
from freehold.core.records import Account
from freehold.core.routes import Route
from freehold.core.serving import Cache
from freehold.gateway.residency import unmet
from freehold.gateway.targets import Member, Routed

MEMORY_BYTES_MAX: Final = 64 * 1024 * 1024
ANSWER_BYTES_MAX: Final = 256 * 1024
"""A larger answer is not kept: reading one takes time that others wait for."""

MAX_AGE_DIGITS: Final = 9
_OVERHEAD_BYTES: Final = 400
"""Of an entry, about, besides its body."""

_FORMAT: Final = b"1"
"""Of keys: what is kept under another one is never found."""

_CHOICES: Final = ("n", "candidateCount", "candidate_count", "best_of")
_KEPT_FOR: Final = frozenset({"end_turn", "stop_sequence", "tool_use"})
_sorted: Final = msgspec.json.Encoder(order="sorted")
_response: Final = msgspec.json.Decoder(ModelResponse)


class Directives(Struct, frozen=True):
    """Of a request's `cache-control`. `max_age_s`: an older answer will not do."""

    reads: bool = True
    keeps: bool = True
    max_age_s: float | None = None


_PLAIN: Final = Directives()


class Wish(Struct, frozen=True):
    """One request that may be answered from what is kept. `reads`: an earlier answer will do; `keeps`: the new one is kept."""

    tenant: str
    key: bytes
    scope: str
    policy: Cache
    request: ModelRequest
    reads: bool
    keeps: bool
    max_age_s: float


class Keeping(Struct, frozen=True):
    """How this call's answer is kept."""

    wish: Wish
    likeness: Likeness | None = None


class Note(Struct, frozen=True):
    """What the client is told."""

    hit: bool
    age_s: int = 0
    similarity: float | None = None


def directives(given: str | None) -> Directives:
    """Raises BadRequest for a `max-age` that is no number. What it does not know it leaves, as the standard has it."""
    if given is None:
        return _PLAIN
    found = _PLAIN
    for one in given.split(","):
        name, _, value = one.strip().lower().partition("=")
        match name:
            case "no-store":
                found = structs.replace(found, reads=False, keeps=False)
            case "no-cache":
                found = structs.replace(found, reads=False)
            case _ if name != "max-age":
                pass
            case _:
                digits = value.strip('"')
                if not (digits.isdecimal() and digits.isascii() and len(digits) <= MAX_AGE_DIGITS):
                    raise BadRequest(
                        f"expected max-age with whole seconds, got {value[:40]!r}", field="cache-control"
                    )
                found = structs.replace(found, max_age_s=float(digits))
    return found


def wish(
    route: Route,
    policy: Cache,
    principal: Principal,
    account: Account,
    request: ModelRequest,
    asked: Directives,
) -> Wish | None:
    """None where no earlier answer will do, and the new one is not to be kept either."""
    if not (asked.reads or asked.keeps) or _many(request):
        return None
    certain = request.temperature == 0 or request.seed is not None or policy.answers == "all"
    if not certain and not asked.max_age_s:
        return None
    scope = _scope(policy, principal, account, request)
    if scope is None:
        return None
    key = key_of(route, principal, scope, request)
    if key is None:
        return None
    age_s = policy.ttl_s if asked.max_age_s is None else min(policy.ttl_s, asked.max_age_s)
    return Wish(principal.tenant, key, scope, policy, request, asked.reads and age_s > 0, asked.keeps, age_s)


def key_of(route: Route, principal: Principal, scope: str, request: ModelRequest) -> bytes | None:
    """None for what has no canonical form. A route that is declared anew begins with nothing."""
    told = canonical(request)
    if told is None:
        return None
    digest = hashlib.sha256(_FORMAT)
    for part in (
        principal.tenant.encode(), scope.encode(), ",".join(principal.residency).encode(), _sorted.encode(route), told
    ):  # fmt: skip
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def canonical(request: ModelRequest) -> bytes | None:
    """All that shapes the answer, and nothing else. How it is told (`stream`), and for whom, is not part of it."""
    extra = {wire: _shaping(fields) for wire, fields in request.extra.items()}
    bare = structs.replace(
        request,
        model="",
        stream=False,
        user=None,
        extra={wire: fields for wire, fields in extra.items() if fields},
    )
    try:
        return _sorted.encode(msgspec.json.decode(msgspec.json.encode(bare)))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _shaping(fields: Mapping[str, Raw]) -> dict[str, Raw]:
    return {name: value for name, value in fields.items() if name != "stream_options"}


def _many(request: ModelRequest) -> bool:
    """Several answers to one request are nothing that the heart has a value for."""
    return any(
        bytes(fields.get(name, b"1")).strip() not in (b"1", b"null")
        for fields in request.extra.values()
        for name in _CHOICES
    )


def _scope(policy: Cache, principal: Principal, account: Account, request: ModelRequest) -> str | None:
    """Whom an answer is kept for; None where nobody is known of that kind."""
    match policy.scope:
        case "tenant":
            return "tenant"
        case "team":
            return account.team and f"team {account.team}"
        case "user":
            named = account.user or request.user
            return named and f"user {named}"
        case "key":
            return f"key {principal.id}"


def keepable(policy: Cache, response: ModelResponse) -> bool:
    calls = any(isinstance(part, ToolCall) for part in response.content)
    return response.stop_reason in _KEPT_FOR and bool(response.content) and (policy.tool_calls or not calls)


def member_of(routed: Routed, model: str, principal: Principal, action: str) -> Member | None:
    """Who gave the answer, where it could be asked by this principal now."""
    for one in routed.reachable:
        if one.model == model:
            target = one.target
            denied = any(
                layer is not ALLOW_ALL and evaluate(layer, action, target.resource) == "explicitly_denied"
                for layer in principal.layers
            )
            outside = unmet(principal.residency, target.regions, target.labels) is not None
            return None if denied or outside else one
    return None


def decoded(kept: KeptAnswer) -> ModelResponse | None:
    """None for what was written by code that knew other values."""
    try:
        return _response.decode(kept.body)
    except msgspec.MsgspecError:
        return None


def encoded(response: ModelResponse) -> bytes:
    return msgspec.json.encode(response)


class Memory:
    """Answers in this process, at most `bytes_max` of them; those that were not asked for longest go first."""

    __slots__ = ("_bytes_max", "_kept", "size_bytes")

    def __init__(self, bytes_max: int = MEMORY_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[tuple[str, bytes], KeptAnswer] = OrderedDict()
        self.size_bytes = 0

    def get(self, tenant: str, key: bytes, now_ms: int) -> KeptAnswer | None:
        place = (tenant, key)
        found = self._kept.get(place)
        if found is None:
            return None
        if now_ms >= found.expires_at_ms:
            self._drop(place)
            return None
        self._kept.move_to_end(place)
        return found

    def add(self, answer: KeptAnswer) -> None:
        place = (answer.tenant, answer.key)
        self._drop(place)
        self._kept[place] = answer
        self.size_bytes += _size(answer)
        while self.size_bytes > self._bytes_max:
            self._drop(next(iter(self._kept)))

    def __len__(self) -> int:
        return len(self._kept)

    def _drop(self, place: tuple[str, bytes]) -> None:
        gone = self._kept.pop(place, None)
        if gone is not None:
            self.size_bytes -= _size(gone)


def _size(answer: KeptAnswer) -> int:
    return len(answer.body) + _OVERHEAD_BYTES
