"""The `objects` kind over a real folder of files: lists, reads pieces, finds words, and stays under its prefix."""

import csv
import io
from pathlib import Path

import msgspec
import pytest

from freehold.core.errors import BadRequest
from freehold.store.blobs import open_objects
from freehold.tools.objects import KIND
from tests.tools._host import PRINCIPAL, Host, data, opened, read, run

TENANT = PRINCIPAL.tenant


@pytest.fixture
async def objects(tmp_path: Path):
    objects = open_objects(str(tmp_path / "objects"))
    for n in range(30):
        manifest = {
            "id": f"MAN-{n:02d}",
            "to": "Rotterdam" if n % 3 else "Shanghai",
            "sku": f"SKU-{4470 + n}",
        }
        await objects.put(TENANT, f"manifests/2026/MAN-{n:02d}.json", msgspec.json.encode(manifest))
    await objects.put(TENANT, "manifests/notes.txt", "Grüße aus Rotterdam. ".encode() * 400 + b"the end")
    await objects.put(TENANT, "manifests/scan.png", b"\x89PNG\r\n\x1a\n\0\0Rotterdam")
    await objects.put(TENANT, "secret/plan.txt", b"Rotterdam is not yours")
    await objects.put("another", "manifests/theirs.txt", b"Rotterdam, another tenant")
    return objects


@pytest.fixture
async def tool(objects):
    async with opened(
        KIND, Host(objects=objects), {"prefix": "manifests/"}, description="Manifests."
    ) as tool:
        yield tool


async def test_a_list_goes_on_where_it_stopped(tool):
    first = await data(tool, "list", prefix="manifests/2026/", limit=20)
    rest = await data(tool, "list", prefix="manifests/2026/", limit=20, cursor=first["next"])
    keys = [one["key"] for one in first["objects"] + rest["objects"]]
    assert keys == [f"manifests/2026/MAN-{n:02d}.json" for n in range(30)]
    assert rest["next"] is None
    assert set(first["objects"][0]) == {"key", "size_bytes", "modified_at"}
    assert len((await data(tool, "list"))["objects"]) == 32


async def test_json_is_read_as_json_and_text_in_pieces(tool, objects):
    got = await data(tool, "read", key="manifests/2026/MAN-03.json")
    assert got["content"] == {"id": "MAN-03", "to": "Shanghai", "sku": "SKU-4473"}
    whole = "".join([piece async for piece in pieces(tool, "manifests/notes.txt", 999)])
    assert whole.encode() == await objects.get(TENANT, "manifests/notes.txt", size_max=100_000)


async def pieces(tool, key: str, length: int):
    start = 0
    while start is not None:
        got = await data(tool, "read", key=key, start=start, length=length)
        yield got["text"]
        start = got["next_start"]


async def test_what_is_no_text_is_refused_with_its_size(tool):
    outcome = await run(tool, "read", key="manifests/scan.png")
    assert outcome.failed
    assert read(outcome)["error"] == "manifests/scan.png is binary, 19 bytes: only text can be read"


async def test_a_missing_object_is_a_failed_answer(tool):
    outcome = await run(tool, "read", key="manifests/none.json")
    assert outcome.failed
    assert "there is no object" in read(outcome)["error"]


@pytest.mark.parametrize(
    ("function", "arguments", "field"),
    [
        ("read", {"key": "secret/plan.txt"}, "key"),
        ("read", {"key": "manifests/../secret/plan.txt"}, "key"),
        ("read", {"key": "/etc/passwd"}, "key"),
        ("read", {"key": "manifests/notes.txt", "start": 10_000_000}, "start"),
        ("read", {"key": "manifests/notes.txt", "start": -1}, "start"),
        ("list", {"prefix": "secret/"}, "prefix"),
        ("search", {"query": "Rotterdam", "prefix": "sec"}, "prefix"),
        ("search", {"query": "   "}, "query"),
        ("search", {"query": "a b c d e f g h i j k l m"}, "query"),
    ],
)
async def test_what_lies_elsewhere_or_does_not_fit_is_refused(tool, function, arguments, field):
    with pytest.raises(BadRequest) as caught:
        await run(tool, function, **arguments)
    assert caught.value.field == field


async def test_words_are_found_in_any_case_and_order(tool):
    got = await data(tool, "search", query="sku-4475 rotterdam")
    assert [one["key"] for one in got["matches"]] == ["manifests/2026/MAN-05.json"]
    assert '"to":"Rotterdam"' in got["matches"][0]["snippets"][0]
    assert got["searched"] == 31
    assert got["skipped"] == 1
    assert (await data(tool, "search", query="sku-4475 shanghai"))["matched"] == 0
    assert (await data(tool, "search", query='"aus Rotterdam"'))["matched"] == 1
    assert (await data(tool, "search", query="theirs"))["matched"] == 0


async def test_matches_are_counted_beyond_the_limit_and_small_ones_given_whole(tool):
    got = await data(tool, "search", query="Rotterdam", limit=3, whole=True)
    assert got["matched"] == 21
    assert [one.get("content", {}).get("id") for one in got["matches"]] == ["MAN-01", "MAN-02", "MAN-04"]
    got = await data(tool, "search", query="Grüße", whole=True)
    assert len(got["matches"][0]["snippets"]) == 1


async def test_changes_are_seen_though_texts_are_kept(tool, objects):
    assert (await data(tool, "search", query="zeppelin"))["matched"] == 0
    await objects.put(TENANT, "manifests/new.txt", b"a zeppelin")
    await objects.put(TENANT, "manifests/notes.txt", b"a zeppelin, too")
    assert (await data(tool, "search", query="zeppelin"))["matched"] == 2
    await objects.delete(TENANT, "manifests/new.txt")
    assert (await data(tool, "search", query="zeppelin"))["matched"] == 1


async def test_only_given_suffixes_and_sizes_are_searched(objects):
    config = {"prefix": "manifests/", "suffixes": [".txt"], "search_bytes_max": 100}
    async with opened(KIND, Host(objects=objects), config) as tool:
        assert await data(tool, "search", query="rotterdam") == {
            "matched": 0,
            "matches": [],
            "searched": 0,
            "skipped": 1,
        }


async def test_a_walk_over_too_many_says_so(objects):
    async with opened(KIND, Host(objects=objects), {"search_objects_max": 5}) as tool:
        got = await data(tool, "search", query="man")
        assert got["searched"] == 5
        assert "longer prefix" in got["note"]


async def test_csv_comes_as_it_is(tool, objects):
    table = io.StringIO()
    csv.writer(table).writerows([["sku", "units"], ["SKU-1", 3]])
    await objects.put(TENANT, "manifests/list.csv", table.getvalue().encode())
    assert (await data(tool, "read", key="manifests/list.csv"))["text"] == "sku,units\r\nSKU-1,3\r\n"
