"""HTTP/2 on the same socket: clients that know it beforehand, flow control both ways, resets, floods, and a stop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from hyperframe.frame import ContinuationFrame, HeadersFrame

from freehold.server import listener_h2
from freehold.store.embedded import EmbeddedServer
from freehold.wires._aws_sigv4 import (
    Scope,
    amz_date,
    canonical_request,
    signature,
    signing_key,
    string_to_sign,
)
from tests._postgres import MIGRATED, fresh_database
from tests._waiting import PATIENCE_S, within
from tests.gateway._vendors import HOLD, OPENAI_STREAM, OPENAI_TEXT, reply, stream
from tests.server._raw import connected
from tests.server._world import World, world

PATH = "/v1/chat/completions"
ASKED = msgspec.json.encode({"model": "openai/gpt-4o", "messages": [{"role": "user", "content": "Hello"}]})
STREAMED = ASKED[:-1] + b',"stream":true}'
PIECE = OPENAI_STREAM[0]


class Raw:
    """A client by hand. `events` are all that came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.events: list[Event] = []
        self._reader = reader
        self.writer = writer
        self._key = key

    def head(self, path: str, method: str = "POST") -> list[tuple[str, str]]:
        return [
            (":method", method), (":path", path), (":scheme", "http"), (":authority", "test"),
            ("authorization", f"Bearer {self._key}"),
        ]  # fmt: skip

    def post(self, body: bytes) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, self.head(PATH))
        self.h2.send_data(stream_id, body, end_stream=True)
        return stream_id

    async def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def until(self, kind: type[Event], fits: Callable[[Any], bool] = lambda _: True) -> Any:
        """Says nothing by itself, and reads no more than it must."""
        async with within(f"{kind.__name__}", self.events):
            while True:
                for event in self.events:
                    if isinstance(event, kind) and fits(event):
                        return event
                data = await self._reader.read(65_536)
                if not data:
                    raise ConnectionResetError
                self.events += self.h2.receive_data(data)

    async def closed(self) -> None:
        async with within("the other side to hang up"):
            while await self._reader.read(65_536):
                pass

    def body(self, stream_id: int) -> bytes:
        pieces = [one for one in self.events if isinstance(one, DataReceived) and one.stream_id == stream_id]
        return b"".join(piece.data for piece in pieces)


@asynccontextmanager
async def raw(shared: World) -> AsyncIterator[Raw]:
    parts = urlsplit(shared.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    client = Raw(reader, writer, shared.key)
    try:
        client.h2.initiate_connection()
        await client.flush()
        yield client
    finally:
        writer.transport.abort()


@asynccontextmanager
async def speaking(shared: World) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"authorization": f"Bearer {shared.key}"}
    async with httpx2.AsyncClient(
        base_url=shared.url, headers=headers, http1=False, http2=True, timeout=PATIENCE_S, trust_env=False
    ) as client:
        yield client


async def test_calls_are_answered_whole_and_streamed_on_one_connection(shared: World) -> None:
    shared.script("openai", reply(OPENAI_TEXT), stream(*OPENAI_STREAM), reply(OPENAI_TEXT))
    async with speaking(shared) as client:
        whole = await client.post(PATH, content=ASKED)
        streamed = await client.post(PATH, content=STREAMED)
        again = await client.post(PATH, content=ASKED)
    assert (whole.status_code, whole.http_version) == (200, "HTTP/2")
    assert whole.json() == again.json()
    assert whole.json()["choices"][0]["message"]["content"]
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.content.endswith(b"data: [DONE]\n\n")


async def test_errors_and_methods_are_told_as_over_http_1(shared: World) -> None:
    async with speaking(shared) as client:
        refused = await client.post(PATH, content=b"{")
        method = await client.get(PATH)
        nobody = await client.post(PATH, content=ASKED, headers={"authorization": "Bearer fh_wrong"})
        head = await client.head("/healthz")
        nowhere = await client.get("/nowhere%2Fat/all?x=1")
    assert (refused.status_code, method.status_code, nobody.status_code) == (400, 405, 401)
    assert (head.status_code, head.content) == (200, b"")
    assert "/nowhere%2Fat/all" in nowhere.json()["error"]["message"]


async def test_the_native_api_is_served_too(shared: World) -> None:
    template = "kind: agent\nname: over-http2\nmodel: openai/gpt-4o\ninstructions: Be brief.\n"
    async with speaking(shared) as client:
        applied = await client.post("/v1/templates/apply", json={"template": template, "variables": {}})
        listed = await client.get("/v1/agents")
        many = await asyncio.gather(*(client.get("/healthz") for _ in range(50)))
    assert applied.status_code == 200, applied.text
    assert "over-http2" in listed.text
    assert {one.status_code for one in many} == {200}


async def test_a_preface_may_come_byte_by_byte(shared: World) -> None:
    async with raw(shared) as client:
        shared.script("openai", reply(OPENAI_TEXT))
    async with connected(shared.url) as plain:
        for byte in listener_h2.PREFACE:
            await plain.send(bytes([byte]))
            await asyncio.sleep(0)
        async with within("SETTINGS"):
            assert (await plain.reader.readexactly(9))[3] == 4, "the server's SETTINGS"
    assert client


async def test_http_1_may_begin_like_a_preface(shared: World) -> None:
    async with connected(shared.url) as plain:
        for piece in (b"P", b"ROPFIND / HTTP/1.1\r\nhost: x\r\n\r\n"):
            await plain.send(piece)
            await asyncio.sleep(0)
        assert (await plain.answer()).status == 404


async def test_a_long_body_comes_through_windows(shared: World) -> None:
    asked = shared.script("openai", reply(OPENAI_TEXT))
    body = ASKED.replace(b"gpt-4o", b"unheard-of").replace(b"Hello", b"y" * 5_000_000)
    async with speaking(shared) as client:
        answer = await client.post(PATH, content=body)
    assert answer.status_code == 200, answer.text
    assert asked.asked[0].body == body.replace(b"openai/", b"")


@pytest.mark.slow
async def test_too_long_a_body_is_refused_and_the_connection_goes_on(shared: World) -> None:
    shared.script("openai", reply(OPENAI_TEXT))
    async with speaking(shared) as client:
        refused = await client.post(PATH, content=b"y" * 40_000_000)
        assert refused.status_code == 413
        assert (await client.post(PATH, content=ASKED)).status_code == 200


@pytest.mark.slow
async def test_a_client_that_reads_nothing_is_waited_for(shared: World) -> None:
    """The vendor could send 40 MB; what the client's window doesn't take, nobody asks the vendor for."""
    held = asyncio.Event()
    taken = 0

    async def vendor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        for step in stream():
            assert isinstance(step, bytes)
            writer.write(step.removesuffix(b"0\r\n\r\n"))
        piece = PIECE * 300
        try:
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                async with asyncio.timeout(1.0):
                    await writer.drain()
                taken += len(piece)
        except TimeoutError:
            held.set()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(vendor, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await shared.apply(f"kind: provider\nname: endless\ntype: openai\nbase_url: http://127.0.0.1:{port}/v1\n")
    async with raw(shared) as client:
        stream_id = client.post(STREAMED.replace(b"openai/gpt-4o", b"endless/x"))
        await client.flush()
        async with within("the vendor to be held back"):
            await client.until(DataReceived)
            await held.wait()
        assert len(client.body(stream_id)) <= 65_535
        assert taken < 20_000_000, "only sockets' buffers are full"
    server.close()


async def test_a_reset_hangs_up_the_vendor(shared: World) -> None:
    vendor = shared.script("openai", stream(PIECE, HOLD))
    async with raw(shared) as client:
        stream_id = client.post(STREAMED)
        await client.flush()
        await client.until(DataReceived)
        client.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        await client.flush()
        async with within("the vendor to be hung up on"):
            await vendor.hung_up.wait()
        shared.script("openai", reply(OPENAI_TEXT))
        again = client.post(ASKED)
        await client.flush()
        await client.until(StreamEnded, lambda one: one.stream_id == again)


async def test_a_lost_connection_hangs_up_the_vendor(shared: World) -> None:
    vendor = shared.script("openai", stream(PIECE, HOLD))
    async with raw(shared) as client:
        client.post(STREAMED)
        await client.flush()
        await client.until(DataReceived)
    async with within("the vendor to be hung up on"):
        await vendor.hung_up.wait()


async def test_a_flood_of_resets_ends_the_connection(shared: World) -> None:
    shared.script("openai", stream(HOLD))
    async with raw(shared) as client:
        for _ in range(listener_h2.RESETS_MAX + 1):
            client.h2.reset_stream(client.post(STREAMED), ErrorCodes.CANCEL)
        await client.flush()
        ended = await client.until(ConnectionTerminated)
        assert ended.error_code == ErrorCodes.ENHANCE_YOUR_CALM
        await client.closed()


async def test_more_streams_than_allowed_are_no_connection(shared: World) -> None:
    shared.script("openai", stream(HOLD))
    async with raw(shared) as client:
        client.h2.remote_settings.max_concurrent_streams = 1_000
        for _ in range(listener_h2.STREAMS_MAX + 1):
            client.post(STREAMED)
        await client.flush()
        await client.until(ConnectionTerminated)


@pytest.mark.parametrize("flood", ["ping", "empty data"])
async def test_frames_that_ask_for_nothing_are_counted(shared: World, flood: str) -> None:
    async with raw(shared) as client:
        stream_id = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream_id, client.head(PATH))
        for _ in range(listener_h2.FRAMES_MAX + 1):
            if flood == "ping":
                client.h2.ping(b"12345678")
            else:
                client.h2.send_data(stream_id, b"")
        await client.flush()
        ended = await client.until(ConnectionTerminated)
        assert ended.error_code == ErrorCodes.ENHANCE_YOUR_CALM


async def test_a_head_without_end_ends_the_connection(shared: World) -> None:
    async with raw(shared) as client:
        frames = [HeadersFrame(1, data=b"")]
        frames += [ContinuationFrame(1, data=b"") for _ in range(100)]
        client.writer.write(b"".join(one.serialize() for one in frames))
        await client.until(ConnectionTerminated)
        await client.closed()


async def test_too_long_a_head_ends_the_connection(shared: World) -> None:
    async with raw(shared) as client:
        more = [(f"x-{at}", "y" * 4_000) for at in range(20)]
        client.h2.send_headers(1, [*client.head(PATH), *more], end_stream=True)
        await client.flush()
        ended = await client.until(ConnectionTerminated)
        assert ended.error_code == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("path", ["nowhere", "/a b", "/\x7f", "*"])
async def test_a_strange_target_is_reset(shared: World, path: str) -> None:
    async with raw(shared) as client:
        client.h2.send_headers(1, client.head(path), end_stream=True)
        await client.flush()
        assert (await client.until(StreamReset)).error_code == ErrorCodes.PROTOCOL_ERROR


@pytest.mark.slow
async def test_a_stop_says_goodbye_and_ends_what_runs(
    postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("stopping")
    async with fresh_database(postgres_server, template=MIGRATED) as url, world(url, folder) as own:
        own.script("openai", stream(PIECE, HOLD))
        async with raw(own) as client:
            stream_id = client.post(STREAMED)
            await client.flush()
            await client.until(DataReceived)
            own.stop.set()
            goodbye = await client.until(ConnectionTerminated)
            assert (goodbye.error_code, goodbye.last_stream_id) == (ErrorCodes.NO_ERROR, stream_id)
            assert isinstance(client.events[-1], ConnectionTerminated | DataReceived | ResponseReceived)
            await client.closed()
            await own.stopped


async def test_a_signature_may_name_the_authority_instead_of_the_host(shared: World) -> None:
    """As AWS's SDK for JavaScript signs by default."""
    shared.script("openai", reply(OPENAI_TEXT))
    made = await shared.json("POST", "/v1/keys", {"name": "signs-authority"})
    body = b'{"messages":[{"role":"user","content":[{"text":"Hi"}]}]}'
    path, date = "/model/openai%2Fgpt-4o/converse", amz_date(int(time.time()))
    scope = Scope(date[:8], "us-east-1", "bedrock")
    named = {":authority": urlsplit(shared.url).netloc, "x-amz-date": date}
    canonical = canonical_request("POST", path, named, sha256(body).hexdigest(), service="bedrock")
    key = signing_key(made["secret_access_key"], scope)
    headers = {
        "x-amz-date": date,
        "authorization": f"AWS4-HMAC-SHA256 Credential={made['access_key_id']}/{scope}, "
        f"SignedHeaders={';'.join(named)}, Signature={signature(key, string_to_sign(date, scope, canonical))}",
    }
    async with speaking(shared) as client:
        answer = await client.post(path, content=body, headers=headers)
        forged = await client.post(path, content=body.replace(b"Hi", b"Ho"), headers=headers)
    assert answer.status_code == 200, answer.text
    assert forged.status_code == 403
