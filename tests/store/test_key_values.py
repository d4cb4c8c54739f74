"""Applications' tables: any JSON under any text, sorted as bytes, page by page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import BadRequest, TooLarge
from freehold.store import key_values
from freehold.store.store import Store

HOSTILE = [
    "a'b",
    'a"; DROP TABLE key_values; --',
    "%",
    "_",
    "a\nb",
    "ü",
    "\U0010ffff",
    "..",
    "/",
    " ",
    "\u202e",
    "\\",
    "{}",
]


async def test_values_are_read_back_and_replaced(store: Store) -> None:
    values = store.key_values
    assert (
        await values.put("default", "stock", {"a": {"z": 1, "b": [None, True, 1.5, "\x00"]}, "b": "x"}) == 2
    )
    assert await values.get("default", "stock", ["b", "a", "nothing"]) == {
        "b": "x",
        "a": {"z": 1, "b": [None, True, 1.5, "\x00"]},
    }
    await values.put("default", "stock", {"a": 2})
    assert await values.get("default", "stock", ["a"]) == {"a": 2}


async def test_hostile_keys_are_just_keys(store: Store) -> None:
    await store.key_values.put("default", "t", dict.fromkeys(HOSTILE, 1))
    page = await store.key_values.scan("default", "t")
    assert [key for key, _ in page.items] == sorted(HOSTILE, key=str.encode)
    for key in HOSTILE:
        assert await store.key_values.get("default", "t", [key]) == {key: 1}
        assert [
            found for found, _ in (await store.key_values.scan("default", "t", prefix=key)).items
        ] == sorted((one for one in HOSTILE if one.startswith(key)), key=str.encode)
    assert await store.key_values.delete("default", "t", [*HOSTILE, "nothing"]) == len(HOSTILE)


async def test_a_scan_pages_through_everything_once(store: Store) -> None:
    keys = [f"sku-{number:04}" for number in range(25)]
    await store.key_values.put("default", "t", dict.fromkeys([*keys, "other", "a"], 1))
    seen, cursor = [], None
    while True:
        page = await store.key_values.scan("default", "t", prefix="sku-", limit=10, cursor=cursor)
        seen += [key for key, _ in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == keys


async def test_tables_and_tenants_do_not_meet(store: Store) -> None:
    await store.key_values.put("default", "one", {"a": 1, "b": 1})
    await store.key_values.put("default", "two", {"a": 2})
    await store.key_values.put("acme", "one", {"a": 3})
    assert await store.key_values.tables("default") == {"one": 2, "two": 1}
    assert await store.key_values.get("acme", "one", ["a", "b"]) == {"a": 3}
    await store.key_values.delete("default", "two", ["a"])
    assert await store.key_values.tables("default") == {"one": 2}


async def test_what_does_not_fit_is_refused_by_name(store: Store) -> None:
    values = store.key_values
    for keys, field in (
        (["\x00"], "key"),
        ([""], "key"),
        (["x" * 1025], "key"),
        (["\ud800"], "key"),
        (["x"] * 10_001, "keys"),
    ):
        with pytest.raises(BadRequest) as caught:
            await values.get("default", "t", keys)
        assert caught.value.field == field
    for table in ("", "x" * 256, "a\nb", "\x00"):
        with pytest.raises(BadRequest, match="table"):
            await values.put("default", table, {"a": 1})
    with pytest.raises(TooLarge, match=str(key_values.VALUE_BYTES_MAX)):
        await values.put("default", "t", {"a": "x" * (key_values.VALUE_BYTES_MAX + 1)})
    with pytest.raises(BadRequest, match="JSON"):
        await values.put("default", "t", {"a": object()})
    with pytest.raises(BadRequest, match="limit"):
        await values.scan("default", "t", limit=1001)
    with pytest.raises(BadRequest, match="cursor"):
        await values.scan("default", "t", cursor="\x00")
    assert await values.put("default", "t", {}) == 0


@given(
    keys=st.sets(st.text("ab\x01ü\ud7ff\ue000\U0010ffff", min_size=1, max_size=3), max_size=20),
    prefix=st.text("ab\x01ü\ud7ff\ue000\U0010ffff", max_size=2),
    limit=st.integers(1, 5),
)
async def test_scanning_agrees_with_python(store: Store, keys: set[str], prefix: str, limit: int) -> None:
    values = store.key_values
    await values.delete(
        "default", "t", [key for key, _ in (await values.scan("default", "t", limit=1000)).items]
    )
    await values.put("default", "t", dict.fromkeys(keys, 0))
    seen, cursor = [], None
    while True:
        page = await values.scan("default", "t", prefix=prefix, limit=limit, cursor=cursor)
        assert len(page.items) <= limit
        seen += [key for key, _ in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == sorted((key for key in keys if key.startswith(prefix)), key=str.encode)
