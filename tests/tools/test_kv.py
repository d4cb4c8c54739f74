"""The `kv` kind over real tables: looks up, lists, and writes only where it may."""

from collections.abc import AsyncIterator

import pytest

from freehold.core.errors import BadRequest
from freehold.store.database import open_database
from freehold.store.embedded import EmbeddedServer
from freehold.store.key_values import PostgresKeyValues
from freehold.store.migrations import migrate
from freehold.tools.kv import KIND
from tests._postgres import fresh_database
from tests.tools._host import PRINCIPAL, Host, data, opened, parameters, run


@pytest.fixture(scope="module")
async def tables(postgres_server: EmbeddedServer) -> AsyncIterator[PostgresKeyValues]:
    async with fresh_database(postgres_server) as url, open_database(url, process_id="test") as database:
        await migrate(database)
        tables = PostgresKeyValues(database)
        levels = {f"SHA/SKU-{n}": {"available": n} for n in range(4000, 4120)}
        await tables.put(PRINCIPAL.tenant, "inventory", levels)
        await tables.put("another", "inventory", {"SHA/SKU-1": "not yours"})
        yield tables


@pytest.fixture
async def tool(tables: PostgresKeyValues):
    config = {"table": "inventory", "key_help": "CENTER/SKU, like SHA/SKU-4482."}
    async with opened(KIND, Host(key_values=tables), config, description="Stock levels.") as tool:
        yield tool


async def test_values_come_by_key_and_missing_keys_are_said(tool):
    got = await data(tool, "get", keys=["SHA/SKU-4001", "SHA/SKU-1"])
    assert got == {"items": {"SHA/SKU-4001": {"available": 4001}}, "missing": ["SHA/SKU-1"]}


async def test_a_list_goes_on_where_it_stopped(tool):
    first = await data(tool, "list", prefix="SHA/SKU-41", limit=15)
    rest = await data(tool, "list", prefix="SHA/SKU-41", limit=15, cursor=first["next"])
    assert list(first["items"] | rest["items"]) == [f"SHA/SKU-{n}" for n in range(4100, 4120)]
    assert rest["next"] is None


async def test_the_model_is_told_what_is_there_and_what_keys_look_like(tool):
    assert [one.spec.name for one in tool.functions] == ["get", "list"]
    for one in tool.functions:
        assert one.effect == "pure"
        assert "Stock levels." in one.spec.description
        assert "CENTER/SKU, like SHA/SKU-4482." in one.spec.description
    schema = parameters(tool, "get")
    assert schema["properties"]["keys"]["type"] == "array"
    assert schema["required"] == ["keys"]
    assert "$ref" not in str(schema)


@pytest.mark.parametrize(
    ("function", "arguments", "field"),
    [
        ("get", {}, "keys"),
        ("get", {"keys": []}, "keys"),
        ("get", {"keys": [1]}, "keys[0]"),
        ("get", {"keys": ["x"] * 101}, "keys"),
        ("get", {"keys": ["x"], "key": "x"}, "key"),
        ("list", {"limit": 0}, "limit"),
        ("list", {"limit": "5"}, "limit"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_with_their_path(tool, function, arguments, field):
    with pytest.raises(BadRequest) as caught:
        await run(tool, function, **arguments)
    assert caught.value.field == field


async def test_a_tool_that_only_reads_has_no_put(tool):
    with pytest.raises(BadRequest, match=r"no function 'put'.*get, list"):
        await run(tool, "put", items={"x": 1})


async def test_a_writable_tool_writes_any_number_of_times(tables: PostgresKeyValues):
    async with opened(KIND, Host(key_values=tables), {"table": "notes", "writable": True}) as tool:
        assert {one.spec.name: one.effect for one in tool.functions} == {
            "get": "pure",
            "list": "pure",
            "put": "idempotent",
            "delete": "idempotent",
        }
        for _ in range(2):
            await data(tool, "put", items={"a": {"b": [1, None]}})
        assert (await data(tool, "get", keys=["a"]))["items"] == {"a": {"b": [1, None]}}
        await data(tool, "delete", keys=["a"])
        await data(tool, "delete", keys=["a"])
        assert (await data(tool, "get", keys=["a"]))["missing"] == ["a"]


async def test_a_config_with_an_unknown_field_is_refused(tables: PostgresKeyValues):
    with pytest.raises(BadRequest, match=r"writeable.*writable"):
        opened(KIND, Host(key_values=tables), {"table": "notes", "writeable": True})
