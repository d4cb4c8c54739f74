"""Model calls past ASGI: bodies in pieces, old clients, what a client's words may do to a head, and who hangs up when."""

import asyncio

import pytest

from freehold.server import listener
from tests.gateway._vendors import OPENAI_STREAM, OPENAI_TEXT, reply, stream
from tests.server._raw import connected, request
from tests.server._world import World

PATH = "/v1/chat/completions"
CHAT = b'{"model":"openai/gpt-4o","messages":[]}'
STREAMED = b'{"model":"openai/gpt-4o","messages":[],"stream":true}'


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def test_a_body_may_come_in_chunks_of_any_size(shared: World) -> None:
    asked = shared.script("openai", reply(OPENAI_TEXT), reply(OPENAI_TEXT))
    head = request("POST", PATH, "transfer-encoding: chunked", key=shared.key)
    async with connected(shared.url) as raw:
        await raw.send(head + chunked(CHAT[:7], CHAT[7:]))
        assert (await raw.answer()).status == 200
        for byte in head + chunked(*(CHAT[at : at + 1] for at in range(len(CHAT)))):
            await raw.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await raw.answer()).status == 200
    assert len(asked.asked) == 2


async def test_a_long_body_is_read_as_it_comes(shared: World) -> None:
    """Over what the protocol holds back by itself."""
    asked = shared.script("openai", reply(OPENAI_TEXT))
    body = CHAT[:-3] + b'[{"role":"user","content":"' + b"y" * 3_000_000 + b'"}]}'
    async with connected(shared.url) as raw:
        await raw.send(request("POST", PATH, key=shared.key, body=body))
        assert (await raw.answer()).status == 200
    assert len(asked.asked) == 1


@pytest.mark.parametrize("framing", ["content-length: 40000000", "transfer-encoding: chunked"])
async def test_too_long_a_body_is_refused_before_it_is_held(shared: World, framing: str) -> None:
    async with connected(shared.url) as raw:
        await raw.send(request("POST", PATH, framing, key=shared.key))
        if "chunked" in framing:
            piece = b"y" * 1_000_000
            for _ in range(34):
                await raw.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        answer = await raw.answer()
    assert answer.status == 413
    assert "33554432 bytes at most" in answer.json()["error"]["message"]


async def test_whoever_may_not_ask_is_told_before_the_body_comes(shared: World) -> None:
    async with connected(shared.url) as raw:
        await raw.send(request("POST", PATH, "content-length: 1000", "expect: 100-continue", key="fh_wrong"))
        assert (await raw.answer()).status == 401


async def test_a_client_of_http_1_0_gets_no_chunks_and_is_hung_up_on(shared: World) -> None:
    shared.script("openai", reply(OPENAI_TEXT), stream(*OPENAI_STREAM))
    for body in (CHAT, STREAMED):
        sent = request("POST", PATH, key=shared.key, body=body).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        async with connected(shared.url) as raw:
            await raw.send(sent)
            head, _, answered = (await raw.closed()).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        assert answered.startswith(b"{" if body is CHAT else b"data: ")


async def test_no_body_answers_a_head(shared: World) -> None:
    async with connected(shared.url) as raw:
        await raw.send(request("HEAD", PATH, key=shared.key))
        status, headers = await raw.head()
        await raw.send(request("GET", "/healthz"))
        assert (await raw.answer()).status == 200
    assert (status, headers["allow"]) == (405, "POST")


async def test_a_query_changes_nothing(shared: World) -> None:
    shared.script("openai", reply(OPENAI_TEXT))
    async with connected(shared.url) as raw:
        await raw.send(request("POST", f"{PATH}?beta=true", key=shared.key, body=CHAT))
        assert (await raw.answer()).status == 200


@pytest.mark.parametrize("name", [r"gpt\r\nx-evil: 1", r"gpt\u0000", r"gpt\n\nx", r"g\u0085"])
async def test_no_name_of_a_model_breaks_out_of_its_header_or_its_record(shared: World, name: str) -> None:
    shared.script("openai", reply(OPENAI_TEXT))
    body = b'{"model":"openai/%b","messages":[]}' % name.encode()
    async with connected(shared.url) as raw:
        await raw.send(request("POST", PATH, key=shared.key, body=body))
        answer = await raw.answer()
    assert answer.status == 400
    assert answer.json()["error"]["param"] == "model"
    assert "x-evil" not in answer.headers


@pytest.mark.slow
async def test_an_idle_connection_is_closed_in_its_time_and_not_before(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer of the first answer rings in the middle of the second's idle time."""
    made = listener.Protocol.connection_made

    def quick(self: listener.Protocol, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        self.timeout_keep_alive = 1.0

    monkeypatch.setattr(listener.Protocol, "connection_made", quick)
    shared.script("openai", *[reply(OPENAI_TEXT)] * 2)
    while not await quiet_between_answers(shared, 0.6):
        pass  # The machine was so late that it could have been closed.


async def quiet_between_answers(shared: World, quiet_s: float) -> bool:
    """Whether the second request came in time for a connection that is closed after a second."""
    loop = asyncio.get_running_loop()
    async with connected(shared.url) as raw:
        for _ in range(2):
            begun_s = loop.time()
            await raw.send(request("POST", PATH, key=shared.key, body=CHAT))
            assert (await raw.answer()).status == 200
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(quiet_s):
                    await raw.reader.read(1)
            if loop.time() - begun_s > 0.9:
                return False
        assert await raw.closed() == b""
        assert loop.time() - begun_s >= 0.99
        return True
