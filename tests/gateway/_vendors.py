"""Vendors on loopback sockets: servers that say exactly the bytes a test gives them, and note what they were asked.

The bodies are in the vendors' own words. Sources: https://platform.openai.com/docs/api-reference/chat/streaming,
https://docs.anthropic.com/en/api/messages-streaming.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import msgspec

PATIENCE_S = 10.0

HOLD = object()
"""In a script: wait until the client hangs up (or the test ends), and note it."""

CUT = object()
"""In a script: close the connection here."""

HEARD = object()
"""In a script: wait until the test has set `Vendor.heard`, so that what follows comes by itself."""

Step = bytes | object


def reply(body: bytes, *, status: int = 200, kind: str = "application/json", headers: str = "") -> list[Step]:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return [head.encode() + body]


def stream(*pieces: Step) -> list[Step]:
    """Each piece is one chunk; without CUT or HOLD the answer is ended properly."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    steps: list[Step] = [head]
    steps += [
        b"%x\r\n%b\r\n" % (len(piece), piece) if isinstance(piece, bytes) else piece for piece in pieces
    ]
    return [*steps, b"0\r\n\r\n"]


class Asked:
    def __init__(self, head: bytes, body: bytes) -> None:
        self.head = head
        self.line, *lines = head.decode().split("\r\n")
        self.path = self.line.split()[1]
        pairs = (line.split(": ", 1) for line in lines if ": " in line)
        self.headers = {name.lower(): value for name, value in pairs}
        self.body = body

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Vendor:
    """Plays its scripts in turn, the last one again and again. `GET /models` lists `models` without using up a script."""

    def __init__(self, *scripts: Sequence[Step], models: Sequence[str] = ()) -> None:
        self._scripts = list(scripts)
        self._models = models
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked: list[Asked] = []
        self.listed_count = 0
        self.hung_up = asyncio.Event()
        self.heard = asyncio.Event()
        self.choose: Callable[[Asked], Sequence[Step]] | None = None
        """Where set, what to answer to each, instead of scripts in turn."""

    def play(self, *scripts: Sequence[Step]) -> None:
        """From now on these, and forget what was asked."""
        self._scripts = list(scripts)
        self.asked.clear()
        self.hung_up, self.heard = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        asked = Asked(head, b"")
        asked.body = await reader.readexactly(int(asked.headers.get("content-length", "0")))
        if asked.line.startswith("GET"):
            self.listed_count += 1
            listed = msgspec.json.encode({"object": "list", "data": [{"id": name} for name in self._models]})
            script: Sequence[Step] = reply(
                listed if self._models else b"{}", status=200 if self._models else 404
            )
        else:
            self.asked.append(asked)
            if self.choose is not None:
                script = self.choose(asked)
            else:
                script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        for step in script:
            if step is HOLD:
                with suppress(ConnectionError):  # Of a client that left with bytes unread.
                    await reader.read()
                self.hung_up.set()
                return False
            if step is CUT:
                return False
            if step is HEARD:
                await self.heard.wait()
                continue
            assert isinstance(step, bytes)
            writer.write(step)
            await writer.drain()
        return True


def sse(*events: Any, name: bool = False) -> bytes:
    """One `data:` an event; with `name`, Anthropic's `event:` lines too."""
    out = b""
    for event in events:
        data = event if isinstance(event, bytes) else msgspec.json.encode(event)
        out += (b"event: %b\n" % event["type"].encode() if name else b"") + b"data: %b\n\n" % data
    return out


# What vendors say.

OPENAI_USAGE = {
    "prompt_tokens": 120,
    "completion_tokens": 7,
    "total_tokens": 127,
    "prompt_tokens_details": {"cached_tokens": 100},
}
OPENAI_TEXT = msgspec.json.encode({
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hello there"}, "finish_reason": "stop"}
    ],
    "usage": OPENAI_USAGE,
})


def openai_chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        "usage": None,
    }


OPENAI_USAGE_CHUNK = {**openai_chunk({}), "choices": [], "usage": OPENAI_USAGE}
OPENAI_STREAM = [
    sse(openai_chunk({"role": "assistant", "content": ""})),
    sse(openai_chunk({"content": "Hello"})),
    sse(openai_chunk({"content": " there"})),
    sse(openai_chunk({}, "stop")),
    sse(OPENAI_USAGE_CHUNK, b"[DONE]"),
]


def _call_delta(
    index: int, arguments: str, call_id: str | None = None, name: str | None = None
) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": arguments}
    call: dict[str, Any] = {"index": index, "function": function}
    if call_id:
        call |= {"id": call_id, "type": "function"}
        function["name"] = name
    return openai_chunk({"tool_calls": [call]})


OPENAI_TOOLS_STREAM = [
    sse(openai_chunk({"role": "assistant", "content": None})),
    sse(_call_delta(0, "", "call_1", "stock")),
    sse(_call_delta(0, '{"sku":')),
    sse(_call_delta(0, '"4482"}')),
    sse(openai_chunk({}, "tool_calls")),
    sse(OPENAI_USAGE_CHUNK, b"[DONE]"),
]
ANTHROPIC_TEXT = msgspec.json.encode({
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "Hello there"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 20,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 0,
        "output_tokens": 7,
    },
})


def _message_start() -> dict[str, Any]:
    message = {**msgspec.json.decode(ANTHROPIC_TEXT), "content": [], "stop_reason": None}
    message["usage"] = {
        "input_tokens": 20,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 0,
        "output_tokens": 1,
    }
    return {"type": "message_start", "message": message}


def _block(delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": delta}


def _message_end(stop_reason: str) -> bytes:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return sse(
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
        name=True,
    )


ANTHROPIC_STREAM = [
    sse(
        _message_start(),
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        name=True,
    ),
    sse({"type": "ping"}, _block({"type": "text_delta", "text": "Hello"}), name=True),
    sse(_block({"type": "text_delta", "text": " there"}), name=True),
    _message_end("end_turn"),
]
_TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "stock", "input": {}}
ANTHROPIC_TOOLS_STREAM = [
    sse(_message_start(), {"type": "content_block_start", "index": 0, "content_block": _TOOL_USE}, name=True),
    sse(_block({"type": "input_json_delta", "partial_json": '{"sku":'}), name=True),
    sse(_block({"type": "input_json_delta", "partial_json": '"4482"}'}), name=True),
    _message_end("tool_use"),
]

# What clients ask.

_TOOL = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}


def openai_request(model: str, *, stream: bool = False, tools: bool = False, **more: Any) -> bytes:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}
    if stream:
        body["stream"] = True
    if tools:
        body["tools"] = [{"type": "function", "function": {"name": "stock", "parameters": _TOOL}}]
    return msgspec.json.encode(body)


def anthropic_request(model: str, *, stream: bool = False, tools: bool = False, **more: Any) -> bytes:
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hi"}],
        **more,
    }
    if stream:
        body["stream"] = True
    if tools:
        body["tools"] = [{"name": "stock", "input_schema": _TOOL}]
    return msgspec.json.encode(body)
