"""API keys: made (and shown) once, listed without their secrets, revoked for good."""

from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct, structs

from freehold.core.errors import BadRequest
from freehold.core.policy import ALLOW_ALL, Policy, authorize, given_on
from freehold.core.ports import Clock, KeyRow
from freehold.core.records import Account
from freehold.gateway import residency
from freehold.governance.keys import KeyTable
from freehold.server.operations import Call, Operation

EXPIRES_IN_S_MAX: Final = 10 * 366 * 86_400


class CreateKey(Struct, frozen=True, forbid_unknown_fields=True):
    """`policy` in IAM's JSON (Version, Statement); without one the key may do everything. `team` and `user`: whom its calls are
    put down to; limits and budgets may be theirs. `labels` (`eu`): where its requests may go, and nowhere else.
    """

    name: str
    policy: Policy | None = None
    expires_in_s: int | None = None
    team: str | None = None
    user: str | None = None
    labels: tuple[str, ...] = ()


class KeyShown(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    status: str
    policy: Policy
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    team: str | None
    user: str | None
    labels: tuple[str, ...]


class KeyMade(KeyShown, frozen=True, kw_only=True):
    """`key` and the pair are shown this once. The pair is for AWS's SDKs, which sign: it is the same key, and goes with it."""

    key: str
    access_key_id: str
    secret_access_key: str


class KeyList(Struct, frozen=True):
    data: tuple[KeyShown, ...]


class KeyApi:
    def __init__(self, keys: KeyTable, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    async def create(self, call: Call) -> KeyMade:
        body: CreateKey = call.body
        authorize(call.principal, "key:Create", "key/*")
        if body.policy is None and any(layer != ALLOW_ALL for layer in call.principal.layers):
            raise BadRequest(
                "required: a key that is limited itself cannot make one without limits", field="policy"
            )
        expires = None
        if body.expires_in_s is not None:
            if not 0 < body.expires_in_s <= EXPIRES_IN_S_MAX:
                raise BadRequest(
                    f"expected 1 to {EXPIRES_IN_S_MAX} seconds, got {body.expires_in_s}", field="expires_in_s"
                )
            expires = self._clock.now() + timedelta(seconds=body.expires_in_s)
        policy = given_on(call.principal, body.policy or ALLOW_ALL)
        team, user = _within(call.principal.account, body)
        labels = residency.check((*call.principal.residency, *body.labels), field="labels")
        made = await self._keys.create(
            call.principal.tenant, body.name, policy, expires_at=expires, team=team, user=user, labels=labels
        )
        pair = self._keys.pair(made.row.id)
        return KeyMade(
            **structs.asdict(_shown(made.row, self._clock.now())),
            key=made.plain,
            access_key_id=pair.access_key_id,
            secret_access_key=pair.secret_access_key,
        )

    async def list(self, call: Call) -> KeyList:
        authorize(call.principal, "key:List", "key/*")
        now = self._clock.now()
        return KeyList(tuple(_shown(row, now) for row in await self._keys.list(call.principal.tenant)))

    async def revoke(self, call: Call) -> KeyShown:
        key_id = call.path["key_id"]
        authorize(call.principal, "key:Revoke", f"key/{key_id}")
        return _shown(await self._keys.revoke(call.principal.tenant, key_id), self._clock.now())


def _within(maker: Account, body: CreateKey) -> tuple[str | None, str | None]:
    """A key of a team, or of a user, makes keys of the same only: nobody leaves a budget by a new key. Raises BadRequest."""
    for field in ("team", "user"):
        own, given = getattr(maker, field), getattr(body, field)
        if own is not None and given not in {None, own}:
            raise BadRequest(
                f"expected {own!r}, the {field} of the key that makes it, got {given!r}", field=field
            )
    return body.team or maker.team, body.user or maker.user


def _shown(row: KeyRow, now: datetime) -> KeyShown:
    if row.revoked_at is not None:
        status = "revoked"
    elif row.expires_at is not None and row.expires_at <= now:
        status = "expired"
    else:
        status = "active"
    return KeyShown(
        id=row.id,
        name=row.name,
        status=status,
        policy=row.policy,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        team=row.team,
        user=row.user,
        labels=row.labels,
    )


def operations(keys: KeyTable, clock: Clock) -> list[Operation]:
    api = KeyApi(keys, clock)
    return [
        Operation(method="POST", path="/v1/keys", id="createKey", tag="keys", summary="Make a key; it is shown this once.",
                  handler=api.create, body=CreateKey, answer=KeyMade),
        Operation(method="GET", path="/v1/keys", id="listKeys", tag="keys", summary="Keys, without their secrets.",
                  handler=api.list, answer=KeyList),
        Operation(method="DELETE", path="/v1/keys/{key_id}", id="revokeKey", tag="keys",
                  summary="Revoke a key, for good; idempotent.", handler=api.revoke, answer=KeyShown),
    ]  # fmt: skip
