"""Access pairs: what AWS's SDKs sign with in a key's name. Derived, so nothing is kept; good while the key is."""

import pytest
from tests.governance.test_keys import PEPPER, Shelf

from freehold.clock import SystemClock
from freehold.core.errors import Unauthenticated
from freehold.core.policy import ALLOW_ALL
from freehold.governance.keys import KeyTable, id_of


def table(shelf: Shelf, pepper: bytes = PEPPER) -> KeyTable:
    return KeyTable(shelf, pepper=pepper, clock=SystemClock())


async def test_a_keys_pair_stands_for_the_key_in_every_process() -> None:
    shelf = Shelf()
    first, second = table(shelf), table(shelf)
    made = await first.create("acme", "robot")
    await second.load()
    pair = first.pair(made.row.id)
    principal, secret = second.signer(pair.access_key_id)
    assert (principal.tenant, principal.id, principal.layers) == ("acme", made.row.id, (ALLOW_ALL,))
    assert secret == pair.secret_access_key
    assert id_of(made.plain) == made.row.id


async def test_a_pair_looks_as_awss_tools_expect_and_tells_nothing_else() -> None:
    keys = table(Shelf())
    made = await keys.create("acme", "robot")
    pair = keys.pair(made.row.id)
    assert pair.access_key_id.isalnum()
    assert pair.access_key_id.isupper()
    assert 16 <= len(pair.access_key_id) <= 128
    assert len(pair.secret_access_key) == 40
    assert pair.secret_access_key not in made.plain
    assert pair.secret_access_key not in repr(pair)


async def test_each_key_and_each_installation_has_its_own_secret() -> None:
    shelf = Shelf()
    here, elsewhere = table(shelf), table(shelf, b"pepper of another place")
    one, two = await here.create("acme", "a"), await here.create("acme", "b")
    secrets = {keys.pair(made.row.id).secret_access_key for keys in (here, elsewhere) for made in (one, two)}
    assert len(secrets) == 4


async def test_a_revoked_keys_pair_is_refused() -> None:
    keys = table(Shelf())
    made = await keys.create("acme", "robot")
    await keys.revoke("acme", made.row.id)
    with pytest.raises(Unauthenticated, match="revoked"):
        keys.signer(keys.pair(made.row.id).access_key_id)


@pytest.mark.parametrize("access_key_id", ["", "AKFH", "AKIAIOSFODNN7EXAMPLE", "AKFH" + "0" * 26])
async def test_a_pair_that_nobody_has_is_refused(access_key_id: str) -> None:
    with pytest.raises(Unauthenticated, match="unknown"):
        table(Shelf()).signer(access_key_id)
