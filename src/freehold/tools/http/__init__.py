"""Tool kind `http`: functions made from a service's OpenAPI document. Which are: `_openapi.py`; where to: `_guard.py`.

The only places that a tool reaches are those its owner wrote down: the origin of `base_url`, or that of `document`. A
document's own `servers` may choose a path there, not another origin. Private addresses need `allow_private`.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urljoin, urlsplit

from msgspec import Meta, Struct

from freehold.core.errors import BadRequest, TimedOut, Unavailable
from freehold.core.messages import ToolSpec, raw
from freehold.core.ports import OpenTool, ToolFunction, ToolHost, ToolKind, ToolOutcome, ToolRun
from freehold.core.resources import SECRET, Effect, Tool
from freehold.tools._functions import check_reach, described, timed_out, unknown_function
from freehold.tools._schema_check import check
from freehold.tools.http._guard import Answer, Origin, Sender, open_client, system_resolve
from freehold.tools.http._openapi import Operation, Read, parse, read_document
from freehold.tools.http._request import Outgoing, outcome, outgoing

DOCUMENT_BYTES_MAX: Final = 5_000_000
DOCUMENT_TIMEOUT_S: Final = 10.0
REDIRECTS_MAX: Final = 3

_REFERENCE: Final = re.compile(r"\{(env:[A-Za-z_][A-Za-z0-9_]*|file:[^{}]+)\}")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*")

log = logging.getLogger(__name__)


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`document` is an address, or the document itself. `headers` go with every request: a secret's reference as a whole
    (`env:TOKEN`) or within braces (`Bearer {env:TOKEN}`). `operations` offers only these; `effects` says what one does
    where its method says too much or too little.
    """

    document: str | dict[str, Any]
    base_url: str | None = None
    operations: tuple[str, ...] | None = None
    headers: dict[str, str] = {}
    allow_private: bool = False
    effects: dict[str, Effect] = {}
    response_bytes_max: Annotated[int, Meta(ge=1_000, le=200_000)] = 100_000


class HttpTool:
    name: ClassVar[str] = "http"
    config: ClassVar[type[Struct]] = Config

    @asynccontextmanager
    async def open(self, tool: Tool, config: Config, host: ToolHost) -> AsyncIterator[OpenTool]:
        headers = {name.lower(): _header(tool, name, value, host) for name, value in config.headers.items()}
        origin = Origin.of(
            _origin_url(tool, config), field="config.base_url" if config.base_url else "config.document"
        )
        async with open_client() as client:
            sender = Sender(
                tool.name, origin, client, allow_private=config.allow_private, resolve=system_resolve
            )
            document = config.document
            if isinstance(document, str):
                fetching = sender
                if (place := Origin.of(document, field="config.document")) != origin:
                    fetching = Sender(
                        tool.name, place, client, allow_private=config.allow_private, resolve=system_resolve
                    )
                document = await _fetch(tool, document, fetching, headers if fetching is sender else {})
            read = _read(tool, document, config)
            yield _Service(tool, config, sender, read, _base_path(tool, config, read, origin), headers)


def _origin_url(tool: Tool, config: Config) -> str:
    if config.base_url is not None:
        return config.base_url
    if isinstance(config.document, str):
        return config.document
    raise BadRequest(
        f"tool {tool.name}: expected `base_url`, since `document` is the document itself",
        field="config.base_url",
    )


def _base_path(tool: Tool, config: Config, read: Read, origin: Origin) -> str:
    """From `base_url`, or else from the document's first server where that is at the document's origin."""
    if config.base_url is not None:
        return urlsplit(config.base_url).path.rstrip("/")
    server = urljoin(str(config.document), read.server or "/")
    if Origin.of(server, field="servers[0].url") != origin:
        raise BadRequest(
            f"tool {tool.name}: the document sends requests to another origin than its own; "
            "if that is meant, write it as the tool's `base_url`",
            field="config.base_url",
        )
    return urlsplit(server).path.rstrip("/")


def _header(tool: Tool, name: str, value: str, host: ToolHost) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise BadRequest(f"tool {tool.name}: {name[:80]!r} is no name for a header", field="config.headers")
    text = (
        host.secret(value)
        if SECRET.fullmatch(value)
        else _REFERENCE.sub(lambda one: host.secret(one[1]), value)
    )
    if not _HEADER_VALUE.fullmatch(text):
        raise BadRequest(
            f"tool {tool.name}: expected printable ASCII without line ends", field=f"config.headers.{name}"
        )
    return text


async def _fetch(tool: Tool, url: str, sender: Sender, headers: Mapping[str, str]) -> dict[str, Any]:
    split = urlsplit(url)
    target = (split.path or "/") + (f"?{split.query}" if split.query else "")
    try:
        async with asyncio.timeout(DOCUMENT_TIMEOUT_S):
            answer = await sender.send("GET", target, headers=headers, body=None, size_max=DOCUMENT_BYTES_MAX)
    except TimeoutError as error:
        raise TimedOut(
            f"tool {tool.name}: its document did not come within {DOCUMENT_TIMEOUT_S:g} s"
        ) from error
    if answer.status != 200:
        raise Unavailable(
            f"tool {tool.name}: its document cannot be read: the service answered with status {answer.status}; "
            "check the tool's `document`"
        )
    try:
        return parse(answer.body)
    except BadRequest as error:
        raise Unavailable(f"tool {tool.name}: its document cannot be read: {error}") from error


def _read(tool: Tool, document: dict[str, Any], config: Config) -> Read:
    try:
        read = read_document(
            document, prefix_chars=len(tool.name) + 1, only=config.operations, effects=config.effects
        )
    except BadRequest as error:
        raise BadRequest(
            f"tool {tool.name}: {error.message}", field=error.field or "config.document"
        ) from error
    for one in read.left_out:
        log.warning("tool.operation_left_out", extra={"tool": tool.name, "operation": one})
    return read


class _Service:
    """The open tool."""

    def __init__(
        self, tool: Tool, config: Config, sender: Sender, read: Read, base_path: str, headers: dict[str, str]
    ) -> None:
        self._tool = tool
        self._sender = sender
        self._base_path = base_path
        self._headers = headers
        self._size_max = config.response_bytes_max
        self._operations = {one.name: one for one in read.operations}
        self.functions: Sequence[ToolFunction] = tuple(_function(tool, one) for one in read.operations)

    async def run(self, run: ToolRun) -> ToolOutcome:
        operation = self._operations.get(run.function)
        if operation is None:
            raise unknown_function(self._tool.name, run.function, self._operations)
        check_reach(self._tool.name, run, self._sender.origin.host)
        check(run.arguments, operation.schema)
        request = outgoing(operation, run.arguments, base_path=self._base_path, key=run.key)
        try:
            async with asyncio.timeout(run.timeout_s):
                return outcome(self._tool.name, await self._send(request))
        except TimeoutError as error:
            raise timed_out(self._tool.name, run) from error

    async def _send(self, request: Outgoing) -> Answer:
        """Redirects are followed for looking only, and only within the origin."""
        target = request.target
        for _ in range(REDIRECTS_MAX):
            answer = await self._sender.send(
                request.method,
                target,
                headers={**request.headers, **self._headers},
                body=request.body,
                size_max=self._size_max,
            )
            found = self._redirected(request.method, target, answer)
            if found is None:
                return answer
            target = found
        return answer

    def _redirected(self, method: str, target: str, answer: Answer) -> str | None:
        location = answer.headers.get("location")
        if method not in {"GET", "HEAD"} or answer.status not in {301, 302, 303, 307, 308} or not location:
            return None
        try:
            url = urljoin(f"{self._sender.origin}{target}", location)
            if Origin.of(url, field="location") != self._sender.origin:
                return None
        except (BadRequest, ValueError):
            return None
        split = urlsplit(url)
        return (split.path or "/") + (f"?{split.query}" if split.query else "")


def _function(tool: Tool, operation: Operation) -> ToolFunction:
    spec = ToolSpec(
        name=operation.name,
        description=described(tool, operation.description),
        parameters=raw(operation.schema),
    )
    return ToolFunction(spec, operation.effect)


KIND: ToolKind = HttpTool()
