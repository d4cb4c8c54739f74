"""Objects in a folder: whole or not at all, never outside the tenant's own, listed in order. S3 speaks through the same code."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import BadRequest, Conflict, NotFound, TooLarge, Unavailable
from freehold.core.ports import Objects
from freehold.store import blobs
from freehold.store.blobs import open_objects


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return open_objects(str(tmp_path / "objects with a space"))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_bytes_come_back_and_are_replaced(objects: Objects) -> None:
    await objects.put("default", "manifests/2026/a.json", b"one")
    await objects.put("default", "manifests/2026/a.json", b"second")
    assert await objects.get("default", "manifests/2026/a.json", size_max=6) == b"second"
    info = await objects.head("default", "manifests/2026/a.json")
    assert (info.key, info.size_bytes) == ("manifests/2026/a.json", 6)
    assert info.modified_at.tzinfo is not None
    await objects.put("default", "empty", b"")
    assert await objects.get("default", "empty", size_max=0) == b""


async def test_a_part_of_an_object_is_read_from_a_start(objects: Objects) -> None:
    await objects.put("default", "a", bytes(range(100)))
    assert await objects.get("default", "a", start=10, size_max=5) == bytes(range(10, 15))
    assert await objects.get("default", "a", start=95, size_max=50) == bytes(range(95, 100))
    assert await objects.get("default", "a", start=100, size_max=5) == b""
    with pytest.raises(TooLarge, match="100 bytes, expected at most 99"):
        await objects.get("default", "a", size_max=99)
    with pytest.raises(BadRequest, match="start"):
        await objects.get("default", "a", start=-1, size_max=5)


async def test_what_is_not_there_is_not_found_and_deleting_it_is_fine(objects: Objects) -> None:
    await objects.put("default", "folder/a", b"x")
    for key in ("nothing", "folder", "folder/a/b", "folder/nothing"):
        with pytest.raises(NotFound, match=key):
            await objects.get("default", key, size_max=1)
        with pytest.raises(NotFound):
            await objects.head("default", key)
    await objects.delete("default", "folder/a")
    await objects.delete("default", "folder/a")
    with pytest.raises(NotFound):
        await objects.get("default", "folder/a", size_max=1)


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "..",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "a/",
        "/a",
        "a/./b",
        "a\x00",
        "a\nb",
        "\x7f",
        "a\\..\\b",
        "\ud800",
        "x" * 201,
        "a/" * 450 + "a",
        "a#1",
    ],
)
async def test_a_key_that_could_leave_its_place_is_refused(
    objects: Objects, tmp_path: Path, key: str
) -> None:
    for attempt in (
        objects.put("default", key, b"x"),
        objects.get("default", key, size_max=1),
        objects.head("default", key),
        objects.delete("default", key),
        objects.list("default", cursor=key),
    ):
        with pytest.raises(BadRequest):
            await attempt
    assert files(tmp_path) == []


@pytest.mark.parametrize("tenant", ["", "..", "a/b", "../default", "a\x00"])
async def test_a_tenant_that_is_no_name_is_refused(objects: Objects, tenant: str) -> None:
    with pytest.raises(BadRequest, match="tenant"):
        await objects.put(tenant, "a", b"x")
    with pytest.raises(BadRequest, match="tenant"):
        await objects.list(tenant)


async def test_tenants_do_not_meet_even_when_one_name_begins_with_another(objects: Objects) -> None:
    await objects.put("acme", "a", b"1")
    await objects.put("acme2", "b", b"2")
    assert [info.key for info in (await objects.list("acme")).objects] == ["a"]
    assert [info.key for info in (await objects.list("nobody")).objects] == []


async def test_a_list_is_sorted_filtered_and_paged(objects: Objects) -> None:
    keys = [f"m/{number:03}.json" for number in range(25)] + ["m/0x", "n", "m2/1", "é", "M"]
    await asyncio.gather(*(objects.put("default", key, b"x") for key in keys))
    seen, cursor = [], None
    while True:
        page = await objects.list("default", prefix="m/0", limit=7, cursor=cursor)
        assert len(page.objects) <= 7
        seen += [info.key for info in page.objects]
        cursor = page.next
        if cursor is None:
            break
    assert seen == sorted(key for key in keys if key.startswith("m/0"))
    assert [info.key for info in (await objects.list("default", limit=1000)).objects] == sorted(
        keys, key=str.encode
    )
    with pytest.raises(BadRequest, match="prefix"):
        await objects.list("default", prefix="../")


async def test_a_name_is_an_object_or_a_folder(objects: Objects) -> None:
    await objects.put("default", "a", b"x")
    with pytest.raises(Conflict, match="already"):
        await objects.put("default", "a/b", b"x")
    await objects.put("default", "folder/b", b"x")
    with pytest.raises(Conflict, match="folder"):
        await objects.put("default", "folder", b"x")


@pytest.mark.slow
async def test_readers_see_the_old_or_the_new_and_never_a_part(objects: Objects) -> None:
    sizes = (200_000, 300_000)
    await objects.put("default", "a", b"0" * sizes[0])

    async def write() -> None:
        for number in range(20):
            await objects.put("default", "a", b"%d" % (number % 2) * sizes[number % 2])

    async def read() -> None:
        for _ in range(40):
            data = await objects.get("default", "a", size_max=10**6)
            assert (len(data), set(data)) in [(sizes[0], {48}), (sizes[1], {49})]

    await asyncio.gather(write(), read(), read())
    assert [info.key for info in (await objects.list("default")).objects] == ["a"]


async def test_an_object_over_the_limit_is_refused(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "OBJECT_BYTES_MAX", 10)
    with pytest.raises(TooLarge, match="at most 10 bytes"):
        await objects.put("default", "a", b"x" * 11)


async def test_the_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    open_objects(str(tmp_path / "new"))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tiny disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_is_said_and_leaves_the_old_object(tiny_disk: Path) -> None:
    objects = open_objects(str(tiny_disk))
    await objects.put("default", "a", b"x" * 1000)
    with pytest.raises(Unavailable, match="disk is full: free space"):
        await objects.put("default", "a", b"y" * 100_000)
    assert await objects.get("default", "a", size_max=1000) == b"x" * 1000
    assert [info.key for info in (await objects.list("default")).objects] == ["a"]
    await objects.put("default", "b", b"y" * 1000)


@pytest.mark.slow
async def test_a_store_that_cannot_be_reached_is_unavailable() -> None:
    settings_s3 = {
        "endpoint": "http://127.0.0.1:9",
        "region": "x",
        "access_key_id": "k",
        "secret_access_key": "hush",
    }
    objects = open_objects("s3://bucket/prefix", settings_s3)
    with pytest.raises(Unavailable) as caught:
        await objects.get("default", "a", size_max=1)
    assert "hush" not in f"{caught.value.message} {caught.value.detail}"


@pytest.mark.parametrize(
    ("location", "given"), [("gs://bucket", {}), ("s3://", {}), ("s3://bucket", {"nonsense": "1"})]
)
def test_a_location_that_makes_no_sense_is_refused(location: str, given: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match="objects"):
        open_objects(location, given)


@given(key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
async def test_any_key_is_kept_under_itself_or_refused(objects: Objects, tmp_path: Path, key: str) -> None:
    try:
        await objects.put("fuzz", key, key.encode())
    except (BadRequest, Conflict):
        return
    assert await objects.get("fuzz", key, size_max=200) == key.encode()
    assert key in [info.key for info in (await objects.list("fuzz", limit=1000)).objects]
    await objects.delete("fuzz", key)
    inside = tmp_path / "objects with a space" / "fuzz"
    assert all(path.is_relative_to(inside) for path in files(tmp_path))
