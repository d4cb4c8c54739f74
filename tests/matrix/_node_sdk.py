"""The vendors' SDKs for Node, called as those for Python are: the matrix's clients need not know which they have."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
from anthropic.types import Message
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import BaseModel

from tests._waiting import PATIENCE_S
from tests.matrix._node import NODE, node_folder
from tests.matrix._world import MatrixWorld

LINE_BYTES_MAX = 1 << 24
ANSWERS: dict[str, type[Any]] = {
    "anthropic_messages": Message,
    "bedrock_converse": dict,
    "openai_chat": ChatCompletion,
    "openai_responses": Response,
}


class NodeFailure(Exception):
    """What the SDK raised. `status` is None in the middle of a stream."""

    def __init__(self, kind: str, status: int | None, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.status = status
        self.message = message


class NodeSdk:
    """One process for all calls. Has what the Python SDK of `wire` has, as far as the matrix's clients use it."""

    def __init__(self, wire: str, process: asyncio.subprocess.Process) -> None:
        self._wire = wire
        self._process = process
        ways = SimpleNamespace(create=self._create, stream=self._stream)
        self.messages = self.responses = ways
        self.chat = SimpleNamespace(completions=ways)
        self._loop = asyncio.get_running_loop()
        self.client = SimpleNamespace(converse=self._converse, converse_stream=self._converse_stream)

    async def _create(self, **given: Any) -> Any:
        return await self._asked(given, stream=False)

    @asynccontextmanager
    async def _stream(self, **given: Any) -> AsyncIterator["_Streamed"]:
        yield _Streamed(await self._asked(given, stream=True))

    def _converse(self, **given: Any) -> Any:
        """From a thread, as boto3 is called."""
        return asyncio.run_coroutine_threadsafe(self._asked(given, stream=False), self._loop).result()

    def _converse_stream(self, **given: Any) -> Any:
        told = asyncio.run_coroutine_threadsafe(self._asked(given, stream=True), self._loop).result()
        return {"stream": _Told(told)}

    async def _asked(self, given: dict[str, Any], *, stream: bool) -> Any:
        asked = {"sdk": self._wire, "stream": stream, "given": given}
        standard_in, out = self._process.stdin, self._process.stdout
        assert standard_in is not None
        assert out is not None
        standard_in.write(msgspec.json.encode(asked, enc_hook=_plain) + b"\n")
        async with asyncio.timeout(PATIENCE_S):
            said = msgspec.json.decode(await out.readline())
        if "answer" not in said:
            raise NodeFailure(**said)
        shape = ANSWERS[self._wire]
        return shape.model_validate(said["answer"]) if issubclass(shape, BaseModel) else said["answer"]


class _Told(list[Any]):
    """A stream's events, all there."""

    def close(self) -> None:
        pass


class _Streamed:
    """All that came is there at once: Node's SDK has put it together."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[Any]:
        yield SimpleNamespace(type="response.completed", response=self._answer)

    async def final(self) -> Any:
        return self._answer

    get_final_completion = get_final_message = final


def _plain(value: Any) -> Any:
    """What an SDK gave, to be given back."""
    assert isinstance(value, BaseModel)
    return value.model_dump(mode="json", exclude_unset=True)


@asynccontextmanager
async def node_process(matrix: MatrixWorld) -> AsyncIterator[asyncio.subprocess.Process]:
    folder = node_folder()
    program = folder / "cell.mjs"
    shutil.copyfile(NODE / "cell.mjs", program)  # Where Node looks for packages: beside the program.
    environment = {
        "PATH": os.environ["PATH"],
        "OPENAI_BASE_URL": f"{matrix.url}/v1",
        "OPENAI_API_KEY": matrix.key,
        "ANTHROPIC_BASE_URL": matrix.url,
        "ANTHROPIC_API_KEY": matrix.key,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": matrix.url,
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": matrix.made["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": matrix.made["secret_access_key"],
    }
    process = await asyncio.create_subprocess_exec(
        "node", str(program), env=environment, limit=LINE_BYTES_MAX,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
