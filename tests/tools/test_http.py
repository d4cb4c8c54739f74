"""The `http` kind against servers on sockets: good ones, and such as are down, slow, wrong, huge, or lead elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from freehold.core.errors import (
    BadRequest,
    Forbidden,
    Overloaded,
    RateLimited,
    TimedOut,
    TooLarge,
    Unavailable,
)
from freehold.tools.http import KIND
from freehold.tools.http._guard import Origin, Sender, open_client, public
from tests.tools._host import Host, data, opened, parameters, read, run

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Supply", "version": "1"},
    "servers": [{"url": "/v1"}],
    "paths": {
        "/orders/{po_id}": {
            "parameters": [{"$ref": "#/components/parameters/Po"}],
            "get": {"operationId": "get_order", "summary": "One order.", "description": "With its lines."},
            "delete": {"operationId": "cancel_order"},
        },
        "/orders": {
            "get": {
                "operationId": "list orders!",
                "parameters": [
                    {"name": "status", "in": "query", "schema": {"type": "array", "items": {"enum": ["open", "closed"]}}},
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 50}},
                    {"name": "late only", "in": "query", "schema": {"type": "boolean"}},
                    {"name": "X-Region", "in": "header", "schema": {"type": "string"}},
                    {"name": "filter", "in": "query", "style": "deepObject", "schema": {"type": "object"}},
                ],
            },
            "post": {
                "operationId": "create_order",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}},
                },
            },
        },
        "/payments": {
            "post": {
                "operationId": "pay",
                "parameters": [{"name": "Idempotency-Key", "in": "header", "required": True, "schema": {"type": "string"}}],
            }
        },
        "/upload": {"post": {"operationId": "upload", "requestBody": {"required": True, "content": {"multipart/form-data": {}}}}},
    },
    "components": {
        "parameters": {"Po": {"name": "po_id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^PO-"}}},
        "schemas": {
            "Order": {
                "type": "object",
                "required": ["sku", "units"],
                "additionalProperties": False,
                "properties": {
                    "id": {"type": "string", "readOnly": True},
                    "sku": {"type": "string"},
                    "units": {"type": "integer", "exclusiveMinimum": 0},
                    "note": {"type": "string", "nullable": True},
                    "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Order"}},
                },
            }
        },
    },
}  # fmt: skip


class Request(msgspec.Struct):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)


Answerer = Callable[[Request], bytes]


def answered(
    body: bytes | object, *, status: str = "200 OK", media: str = "application/json", more: str = ""
) -> bytes:
    body = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: {media}\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode()
        + body
    )


@asynccontextmanager
async def server(
    answer: Answerer, *, hang: bool = False, once: bool = False
) -> AsyncIterator[tuple[str, list[Request]]]:
    """Its address and what it was asked. It answers with exactly the bytes that `answer` gives; then `hang` never ends, `once` hangs up."""
    seen: list[Request] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, target, _ = first.split(" ")
                seen.append(Request(method, target, headers, body))
                writer.write(answer(seen[-1]))
                await writer.drain()
                if hang:
                    await over.wait()
                if once:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", seen
    finally:
        over.set()
        listening.close()


def echo(request: Request) -> bytes:
    return answered({"method": request.method, "target": request.target})


def using(url: str, **config: Any):
    config = {"document": DOCUMENT, "base_url": f"{url}/v1", "allow_private": True} | config
    return opened(KIND, Host(), config, name="supply", description="Orders.")


async def test_operations_become_functions_with_effects_by_method():
    async with using("http://127.0.0.1:1") as tool:
        assert {one.spec.name: one.effect for one in tool.functions} == {
            "get_order": "pure",
            "cancel_order": "idempotent",
            "list_orders": "pure",
            "create_order": "irreversible",
            "pay": "idempotent",
        }
        assert tool.functions[0].spec.description == "One order. With its lines. Orders."


async def test_schemas_are_resolved_cut_down_and_closed():
    async with using("http://127.0.0.1:1") as tool:
        order = parameters(tool, "create_order")["properties"]["body"]
        assert "$ref" not in str(order)
        assert set(order["properties"]) == {"sku", "units", "note", "parts"}
        assert order["properties"]["note"]["type"] == ["string", "null"]
        assert order["properties"]["parts"] == {"type": "array", "items": {}}
        assert parameters(tool, "pay")["properties"] == {}
        assert set(parameters(tool, "list_orders")["properties"]) == {
            "status",
            "limit",
            "late_only",
            "X-Region",
            "filter",
        }


async def test_arguments_go_where_the_document_says():
    async with server(echo) as (url, seen), using(url) as tool:
        await data(tool, "get_order", po_id="PO-1/../x y")
        assert seen[-1].target == "/v1/orders/PO-1%2F..%2Fx%20y"
        await data(
            tool,
            "list_orders",
            **{
                "status": ["open", "closed"],
                "limit": 5,
                "late_only": True,
                "X-Region": "asia",
                "filter": {"dc": "S&A"},
            },
        )
        assert seen[-1].query == {
            "status": ["open", "closed"],
            "limit": ["5"],
            "late only": ["true"],
            "filter[dc]": ["S&A"],
        }
        assert seen[-1].headers["x-region"] == "asia"
        assert "idempotency-key" not in seen[-1].headers
        await run(tool, "create_order", step_key="step-7", body={"sku": "SKU-1", "units": 3})
        assert seen[-1].method == "POST"
        assert msgspec.json.decode(seen[-1].body) == {"sku": "SKU-1", "units": 3}
        assert seen[-1].headers["content-type"] == "application/json"
        assert seen[-1].headers["idempotency-key"] == "step-7"


@pytest.mark.parametrize(
    ("function", "arguments", "field"),
    [
        ("get_order", {}, "po_id"),
        ("get_order", {"po_id": 5}, "po_id"),
        ("get_order", {"po_id": "X-1"}, "po_id"),
        ("list_orders", {"limit": 51}, "limit"),
        ("list_orders", {"limit": True}, "limit"),
        ("list_orders", {"status": ["opened"]}, "status[0]"),
        ("list_orders", {"stat": ["open"]}, "stat"),
        ("list_orders", {"X-Region": "a\r\nx: y"}, "X-Region"),
        ("create_order", {}, "body"),
        ("create_order", {"body": {"sku": "A", "units": 0}}, "body.units"),
        ("create_order", {"body": {"sku": "A"}}, "body.units"),
        ("create_order", {"body": {"sku": "A", "units": 1, "unit": 1}}, "body.unit"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(function, arguments, field):
    async with server(echo) as (url, seen), using(url) as tool:
        with pytest.raises(BadRequest) as caught:
            await run(tool, function, **arguments)
        assert caught.value.field == field
        assert not seen


async def test_a_path_cannot_be_left(monkeypatch: pytest.MonkeyPatch):
    document = {
        "openapi": "3.0.0",
        "paths": {"/a/{x}": {"get": {"operationId": "a", "parameters": [{"name": "x", "in": "path"}]}}},
    }
    async with server(echo) as (url, seen), using(url, document=document) as tool:
        for value in ("..", ".", ""):
            with pytest.raises(BadRequest):
                await run(tool, "a", x=value)
        assert not seen


async def test_the_document_may_come_from_the_service_and_secrets_go_along(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SUPPLY_TOKEN", "s3cret")

    def answer(request: Request) -> bytes:
        return answered(DOCUMENT) if request.target == "/openapi.json" else echo(request)

    async with server(answer) as (url, seen):
        config = {
            "document": f"{url}/openapi.json",
            "allow_private": True,
            "headers": {"Authorization": "Bearer {env:SUPPLY_TOKEN}", "X-Plain": "env:SUPPLY_TOKEN"},
        }
        async with opened(KIND, Host(), config) as tool:
            await data(tool, "get_order", po_id="PO-1")
    assert [one.target for one in seen] == ["/openapi.json", "/v1/orders/PO-1"]
    assert {one.headers["authorization"] for one in seen} == {"Bearer s3cret"}
    assert {one.headers["x-plain"] for one in seen} == {"s3cret"}


async def test_a_document_cannot_send_requests_to_another_origin():
    elsewhere = DOCUMENT | {"servers": [{"url": "http://169.254.169.254/latest"}]}
    async with server(lambda _: answered(elsewhere)) as (url, _):
        with pytest.raises(BadRequest, match="another origin"):
            async with opened(KIND, Host(), {"document": f"{url}/openapi.json", "allow_private": True}):
                pass


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("500 Oops", Unavailable),
        ("502 Bad", Unavailable),
        ("503 Busy", Overloaded),
        ("429 Slow", RateLimited),
    ],
)
async def test_the_services_faults_are_errors_that_can_be_tried_again(status: str, error: type[Exception]):
    reply = answered(
        b"<html>trace with s3cret</html>", status=status, media="text/html", more="retry-after: 7\r\n"
    )
    async with server(lambda _: reply) as (url, _), using(url) as tool:
        with pytest.raises(error, match="tool supply") as caught:
            await run(tool, "get_order", po_id="PO-1")
        assert caught.value.retryable
        assert "s3cret" not in str(caught.value)
        if error in {Overloaded, RateLimited}:
            assert caught.value.retry_after_s == 7


async def test_the_services_no_is_an_answer():
    reply = answered({"detail": "no such order"}, status="404 Not Found")
    async with server(lambda _: reply) as (url, _), using(url) as tool:
        outcome = await run(tool, "get_order", po_id="PO-1")
        assert outcome.failed
        assert read(outcome) == {
            "error": "404 Not Found: no such order",
            "status": 404,
            "body": {"detail": "no such order"},
        }


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"not http at all\r\n\r\n", Unavailable),
        (b"", Unavailable),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", Unavailable),
        (answered(b"{oops"), Unavailable),
        (answered(b"\xff\xfe"), Unavailable),
        (answered(b"[" * 100_000), Unavailable),
        (answered(b"x", more="content-encoding: gzip\r\n"), Unavailable),
        (answered(b"[" + b"1," * 100_000 + b"1]"), TooLarge),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"fff0\r\n" + b"x" * 0xFFF0 + b"\r\n" * 1
         + (b"fff0\r\n" + b"x" * 0xFFF0 + b"\r\n") * 3, TooLarge),
    ],
)  # fmt: skip
async def test_garbage_and_floods_are_told_apart_from_answers(reply: bytes, error: type[Exception]):
    async with (
        server(lambda _: reply, once=True) as (url, _),
        using(url) as tool,
    ):
        with pytest.raises(error, match="tool supply"):
            await run(tool, "get_order", po_id="PO-1")


async def test_a_slow_service_times_out():
    async with server(lambda _: b"HTTP/1.1 200 OK\r\n", hang=True) as (url, _), using(url) as tool:
        with pytest.raises(TimedOut, match="timeout_s"):
            await run(tool, "get_order", timeout_s=0.2, po_id="PO-1")


async def test_a_service_that_is_down_is_unavailable_and_comes_back(unused_tcp_port: int):
    async with using(f"http://127.0.0.1:{unused_tcp_port}") as tool:
        with pytest.raises(Unavailable, match="cannot be reached; check that it runs"):
            await run(tool, "get_order", po_id="PO-1")
        with pytest.raises(Unavailable, match="cannot be reached"):
            async with using("x", document=f"http://127.0.0.1:{unused_tcp_port}/openapi.json", base_url=None):
                pass


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://localhost:{port}", "http://[::1]:{port}"])
async def test_private_addresses_are_refused_unless_allowed(url: str, unused_tcp_port: int):
    async with using(url.format(port=unused_tcp_port), allow_private=False) as tool:
        with pytest.raises(Forbidden, match="allow_private"):
            await run(tool, "get_order", po_id="PO-1")


@pytest.mark.parametrize(
    ("address", "open_"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("10.0.0.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("::ffff:127.0.0.1", False),
        ("64:ff9b::a00:1", False), ("2002:7f00:1::", False), ("fe80::1", False), ("fd00::1", False), ("::", False),
        ("64:ff9b::808:808", True),
    ],
)  # fmt: skip
def test_what_is_public(address: str, open_: bool):
    assert public(ip_address(address)) is open_


async def test_a_second_answer_of_the_name_server_leads_nowhere():
    """The name is looked up once a request, and the connection goes to the address that was checked."""
    answers = iter([["127.0.0.1"], ["10.0.0.1", "192.168.0.1"]])
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    async with server(echo) as (url, seen), open_client() as client:
        origin = Origin("http", "rebinds.example", int(url.rpartition(":")[2]))
        sender = Sender("supply", origin, client, allow_private=True, resolve=resolve)
        answer = await sender.send("GET", "/x", headers={}, body=None, size_max=1000)
        assert answer.status == 200
        assert seen[0].headers["host"] == str(origin).removeprefix("http://")
        strict = Sender("supply", origin, client, allow_private=False, resolve=resolve)
        with pytest.raises(Forbidden):
            await strict.send("GET", "/x", headers={}, body=None, size_max=1000)
        assert asked == ["rebinds.example"] * 2
        assert len(seen) == 1


async def test_redirects_stay_within_the_origin():
    async with server(echo) as (other, other_seen):

        def answer(request: Request) -> bytes:
            if request.target.endswith("PO-near"):
                return answered(b"", status="302 Found", more="location: /v1/orders/PO-1\r\n")
            if request.target.endswith("PO-far"):
                return answered(b"", status="302 Found", more=f"location: {other}/\r\n")
            if request.target.endswith("PO-round"):
                return answered(b"", status="302 Found", more="location: /v1/orders/PO-round\r\n")
            return echo(request)

        async with server(answer) as (url, seen), using(url) as tool:
            assert (await data(tool, "get_order", po_id="PO-near"))["target"] == "/v1/orders/PO-1"
            for po in ("PO-far", "PO-round"):
                outcome = await run(tool, "get_order", po_id=po)
                assert outcome.failed
                assert "redirects" in read(outcome)["error"]
            outcome = await run(tool, "cancel_order", po_id="PO-near")
            assert outcome.failed
            assert len(seen) < 10
        assert not other_seen


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with server(echo) as (url, seen), using(url) as tool:
        await data(tool, "get_order", po_id="PO-1")
        assert seen


async def test_chosen_operations_and_effects():
    async with using(
        "http://127.0.0.1:1", operations=["create_order"], effects={"create_order": "idempotent"}
    ) as tool:
        assert [(one.spec.name, one.effect) for one in tool.functions] == [("create_order", "idempotent")]
    with pytest.raises(BadRequest, match=r"no operation 'create_orders' \(did you mean 'create_order'"):
        async with using("http://127.0.0.1:1", operations=["create_orders"]):
            pass
    with pytest.raises(BadRequest, match="multipart"):
        async with using("http://127.0.0.1:1", operations=["upload"]):
            pass


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"document": {"swagger": "2.0"}}, "OpenAPI 3.0 or 3.1"),
        ({"document": {"openapi": "3.0.0"}}, "paths"),
        ({"base_url": None}, "base_url"),
        ({"base_url": "ftp://x"}, "http"),
        ({"base_url": "http://user:pw@x"}, "headers"),
        ({"headers": {"x y": "z"}}, "no name for a header"),
        ({"headers": {"x": "a\nb"}}, "line ends"),
        ({"timeout": 1}, "unknown field"),
    ],
)
async def test_a_config_that_cannot_be_is_refused(config, said):
    with pytest.raises(BadRequest, match=said):
        async with using("http://127.0.0.1:1", **config):
            pass


async def test_other_media_types_are_given_as_text_or_named():
    replies = {
        "PO-t": answered(b"plain words", media="text/plain; charset=utf-8"),
        "PO-b": answered(b"\x89PNG", media="image/png"),
        "PO-e": b"HTTP/1.1 204 No Content\r\n\r\n",
    }
    async with server(lambda one: replies[one.target.rpartition("/")[2]]) as (url, _), using(url) as tool:
        assert (await run(tool, "get_order", po_id="PO-t")).content[0].text == "plain words"
        assert await data(tool, "get_order", po_id="PO-b") == {
            "note": "4 bytes of image/png, which is no text"
        }
        assert await data(tool, "get_order", po_id="PO-e") == {"status": 204}
