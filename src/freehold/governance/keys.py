"""Governance: API keys: made once, shown once, kept as a digest, and known by heart so that no call waits for the database.

A key reads `fh_<id>_<secret><checksum>`: a prefix that scanners for leaked secrets can look for, its row's id, 256 bits of
chance, and a CRC-32 by which a mistyped key is told from an unknown one (the form follows
https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/). Kept is its HMAC-SHA-256 under
the installation's pepper. Clients that sign (AWS's) use an access pair, which is derived from the pepper and the key's id: the
server must know the secret to check a signature, and nothing more is kept. So whoever has the pepper can sign as any key.
Not here: how a request carries a key (server/), and who may make one (policy).
"""

import asyncio
import hmac
import logging
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Final
from zlib import crc32

from msgspec import Struct

from freehold.core import ids
from freehold.core.errors import BadRequest, Internal, Unauthenticated, Unavailable
from freehold.core.policy import ALLOW_ALL, Policy, Principal
from freehold.core.ports import Clock, KeyRow, Keys
from freehold.core.records import Account

PREFIX: Final = "fh_"
SECRET_BYTES: Final = 32
SECRET_DIGITS: Final = 43
CHECKSUM_DIGITS: Final = 6
CREDENTIAL_CHARS_MAX: Final = 256
PEPPER_BYTES_MIN: Final = 16
NAME_CHARS_MAX: Final = 200
ACCESS_KEY_PREFIX: Final = "AKFH"
PAIR_SECRET_BYTES: Final = 30
"""40 characters, as AWS's own secrets have."""

RELOAD_S: Final = 30.0
"""How long a change may go unseen when its notification is lost. Otherwise changes are seen at once."""

RETRY_S: Final = 1.0
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

log = logging.getLogger(__name__)


class IssuedKey(Struct, frozen=True):
    """`plain` is shown to its owner now, and can never be had again."""

    row: KeyRow
    plain: str

    def __repr__(self) -> str:
        return f"IssuedKey({self.row.id})"


class AccessPair(Struct, frozen=True):
    """What AWS's SDKs sign with in a key's name."""

    access_key_id: str
    secret_access_key: str

    def __repr__(self) -> str:
        return f"AccessPair({self.access_key_id})"


class Admitted(Struct, frozen=True):
    """Who a credential stood for when it was looked up. It still does while `KeyTable.holds` this."""

    principal: Principal
    expires_at_ms: int | None = None
    generation: int = 0


class _Known(Struct, frozen=True):
    digest: bytes
    principal: Principal
    expires_at_ms: int | None
    revoked: bool


class KeyTable:
    """All keys of all tenants, in memory. `load` before the first use; `follow` in a task for as long as it is used."""

    def __init__(self, keys: Keys, *, pepper: bytes, clock: Clock) -> None:
        if len(pepper) < PEPPER_BYTES_MIN:
            raise Internal(
                f"the pepper has {len(pepper)} bytes, it needs PEPPER_BYTES_MIN = {PEPPER_BYTES_MIN}"
            )
        self._keys = keys
        self._pepper = pepper
        self._clock = clock
        self._known: Mapping[bytes, _Known] = {}
        # HMAC by OpenSSL takes 3 us, a keyed BLAKE2b 0.6: what was presented before is recalled by the latter.
        self._blake = blake2b(key=clock.entropy(32), digest_size=32)
        self._recalled: dict[bytes, _Known] = {}
        self._by_id: Mapping[str, _Known] = {}
        self._generation = 0
        """Of what is known: counts how often it was learned anew."""

    def authenticate(self, credential: str | None) -> Principal:
        """Microseconds, and no wait. Raises Unauthenticated, saying what is wrong as far as the caller may know."""
        return self.admit(credential).principal

    def admit(self, credential: str | None) -> Admitted:
        """As `authenticate`, for who keeps it."""
        if not credential or len(credential) > CREDENTIAL_CHARS_MAX:
            raise Unauthenticated(_explain(credential))
        blake = self._blake.copy()
        blake.update(credential.encode())
        seen = blake.digest()
        known = self._recalled.get(seen) or self._recognize(credential, seen)
        return Admitted(self._current(known), known.expires_at_ms, self._generation)

    def holds(self, admitted: Admitted) -> bool:
        """Nothing has changed since, and it has not run out. Otherwise it is to be looked up again."""
        expires_at_ms = admitted.expires_at_ms
        return admitted.generation == self._generation and (
            expires_at_ms is None or self._clock.now_ms() < expires_at_ms
        )

    def principal(self, key_id: str) -> Principal:
        """Who acts by the key of that id now. Raises Unauthenticated where it was revoked, has expired or is unknown."""
        known = self._by_id.get(key_id)
        if known is None:
            raise Unauthenticated(f"the API key {key_id} is unknown")
        return self._current(known)

    def pair(self, key_id: str) -> AccessPair:
        """The same for as long as the installation's pepper is; good while the key is."""
        secret = hmac.digest(self._pepper, f"sigv4:{key_id}".encode(), "sha256")[:PAIR_SECRET_BYTES]
        access_key_id = ACCESS_KEY_PREFIX + key_id.removeprefix("key_").upper()
        return AccessPair(access_key_id, urlsafe_b64encode(secret).decode())

    def signer(self, access_key_id: str) -> tuple[Principal, str]:
        """Who signs with this access key id, and with which secret. Raises Unauthenticated as `principal` does."""
        key_id = "key_" + access_key_id.removeprefix(ACCESS_KEY_PREFIX).lower()
        return self.principal(key_id), self.pair(key_id).secret_access_key

    def _current(self, known: _Known) -> Principal:
        if known.revoked:
            raise Unauthenticated(f"the API key {known.principal.id} was revoked")
        if known.expires_at_ms is not None and self._clock.now_ms() >= known.expires_at_ms:
            raise Unauthenticated(f"the API key {known.principal.id} has expired")
        return known.principal

    def _recognize(self, credential: str, seen: bytes) -> _Known:
        digest = hmac.digest(self._pepper, credential.encode(), "sha256")
        known = self._known.get(digest)
        if known is None or not hmac.compare_digest(known.digest, digest):
            raise Unauthenticated(_explain(credential))
        self._recalled[seen] = known  # At most one for each key there is.
        return known

    def _learn(self, known: Mapping[bytes, _Known]) -> None:
        self._known, self._recalled = known, {}
        self._generation += 1
        self._by_id = {one.principal.id: one for one in known.values()}

    async def create(
        self,
        tenant: str,
        name: str,
        policy: Policy = ALLOW_ALL,
        *,
        expires_at: datetime | None = None,
        team: str | None = None,
        user: str | None = None,
        labels: Sequence[str] = (),
    ) -> IssuedKey:
        """Good at once in this process, and within a second in the others. `team` and `user` are whom its calls are put down to,
        `labels` what every place must meet to which its requests go.
        """
        for field, given in (("name", name), ("team", team), ("user", user)):
            if given is not None and not (1 <= len(given) <= NAME_CHARS_MAX and given.isprintable()):
                raise BadRequest(
                    f"expected 1 to {NAME_CHARS_MAX} printable characters, got {given[:80]!r}", field=field
                )
        now = self._clock.now()
        if expires_at is not None and (expires_at.tzinfo is None or expires_at <= now):
            raise BadRequest("expected a time in the future with its zone", field="expires_at")
        key_id = ids.new("key", self._clock)
        plain = compose(key_id, self._clock.entropy(SECRET_BYTES))
        row = KeyRow(
            id=key_id,
            tenant=tenant,
            name=name,
            digest=hmac.digest(self._pepper, plain.encode(), "sha256"),
            policy=policy,
            created_at=now,
            expires_at=expires_at,
            team=team,
            user=user,
            labels=tuple(labels),
        )
        await self._keys.add(row)
        self._learn({**self._known, row.digest: _known(row)})
        return IssuedKey(row, plain)

    async def ensure_first_key(self, tenant: str = "default") -> str | None:
        """At the first start: a key that may do everything, in plain, this once. None where there ever was a key."""
        if await self._keys.list(None):
            return None
        return (await self.create(tenant, "first key")).plain

    async def revoke(self, tenant: str, key_id: str) -> KeyRow:
        """Idempotent; at once in this process, within a second in the others. Raises NotFound."""
        row = await self._keys.revoke(tenant, key_id)
        self._learn({**self._known, row.digest: _known(row)})
        return row

    async def list(self, tenant: str) -> Sequence[KeyRow]:
        return await self._keys.list(tenant)

    async def load(self) -> None:
        """Raises Unavailable when the database is away."""
        rows = await self._keys.list(None)
        self._learn({row.digest: _known(row) for row in rows})

    async def follow(self) -> None:
        """Keeps up with changes of any process, until cancelled. While the database is away, what was known last holds."""
        away = False
        while True:
            try:
                await self._load_until_changed(RETRY_S if away else RELOAD_S)
                away = False
            except* Unavailable as group:
                if not away:
                    log.warning("keys.not_followed", extra={"reason": str(group.exceptions[0])})
                away = True
                await asyncio.sleep(RETRY_S)

    async def _load_until_changed(self, timeout_s: float) -> None:
        """Listens before it reads, so that no change falls between the two."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keys.changed(timeout_s))
            await asyncio.sleep(0)
            await self.load()


def compose(key_id: str, secret: bytes) -> str:
    """Pure. `key_id` is `key_…`, `secret` SECRET_BYTES of chance."""
    body = f"{PREFIX}{key_id.removeprefix('key_')}_{_base62(int.from_bytes(secret, 'big'), SECRET_DIGITS)}"
    return body + _checksum(body)


def id_of(plain: str) -> str:
    """The id of a key that `compose` made."""
    return f"key_{plain.split('_')[1]}"


def intact(credential: str) -> bool:
    """Whether it has the form and the checksum of a key; says nothing about anybody knowing it."""
    body, checksum = credential[:-CHECKSUM_DIGITS], credential[-CHECKSUM_DIGITS:]
    return credential.startswith(PREFIX) and body.count("_") == 2 and _checksum(body) == checksum


def _checksum(body: str) -> str:
    return _base62(crc32(body.encode()), CHECKSUM_DIGITS)


def _base62(number: int, digits: int) -> str:
    out = []
    for _ in range(digits):
        number, digit = divmod(number, 62)
        out.append(_BASE62[digit])
    return "".join(reversed(out))


def _known(row: KeyRow) -> _Known:
    policy = ALLOW_ALL if row.policy == ALLOW_ALL else row.policy  # `authorize` passes the constant at once.
    return _Known(
        digest=row.digest,
        principal=Principal(
            row.tenant,
            "service",
            row.id,
            (policy,),
            Account(key_id=row.id, team=row.team, user=row.user),
            row.name,
            row.labels,
        ),
        expires_at_ms=None if row.expires_at is None else int(row.expires_at.timestamp() * 1000),
        revoked=row.revoked_at is not None,
    )


def _explain(credential: str | None) -> str:
    if not credential:
        return "no API key: send `Authorization: Bearer fh_…` or `x-api-key: fh_…` (`freehold keys create` makes one)"
    if not credential.startswith(PREFIX):
        vendor = " (a vendor's key belongs into Freehold's environment, not into the client)"
        return "this is no API key of Freehold: they begin with fh_" + (
            vendor if credential.startswith(("sk-", "sk_")) else ""
        )
    if not intact(credential):
        return "this API key is mistyped or cut off: its checksum does not fit"
    return "nobody knows this API key: it belongs to another installation, or never was"
