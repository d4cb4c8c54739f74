"""Server: which operation a request means. On the raw path: what a client percent-encodes stays one segment.

So `/v1/agents/a%2Fversions` is the agent `a/versions` and not the versions of `a`. Paths are matched exactly: there are no
redirects, and an empty segment matches nothing. In `{key:path}` the rest of the path is one value, slashes included.
"""

from collections.abc import Sequence
from typing import Final, Generic, TypeVar
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from freehold.core.errors import BadRequest

Target = TypeVar("Target")
REST: Final = ":path}"
SEGMENTS_MAX: Final = 64


class Route(Struct, Generic[Target], frozen=True):
    """`template` like `/v1/sessions/{session_id}/events` or `/v1/objects/{key:path}`."""

    method: str
    template: str
    target: Target


class Found(Struct, Generic[Target], frozen=True):
    target: Target
    values: dict[str, str]


class Refused(Struct, frozen=True):
    """`methods` are those that the path has; none where there is no such path."""

    methods: tuple[str, ...]


class _Node(Generic[Target]):
    """One segment. A literal goes before a value, a value before the rest."""

    __slots__ = ("literals", "names", "rest", "targets", "value")

    def __init__(self) -> None:
        self.literals: dict[bytes, _Node[Target]] = {}
        self.value: _Node[Target] | None = None
        self.rest: _Node[Target] | None = None
        self.targets: dict[str, Target] = {}
        self.names: tuple[str, ...] = ()


class Router(Generic[Target]):
    def __init__(self, routes: Sequence[Route[Target]]) -> None:
        self._root: _Node[Target] = _Node()
        for route in routes:
            self._add(route)

    def find(self, method: str, raw_path: bytes) -> Found[Target] | Refused:
        """HEAD is served where GET is. Raises BadRequest where a value is no percent-encoded UTF-8."""
        segments = raw_path.split(b"/", SEGMENTS_MAX)[1:]
        found = _walk(self._root, segments, 0, ())
        if found is None:
            return Refused(())
        node, values = found
        target = node.targets.get(method)
        if target is None and method == "HEAD":
            target = node.targets.get("GET")
        if target is None:
            allowed = {*node.targets, *(("HEAD",) if "GET" in node.targets else ())}
            return Refused(tuple(sorted(allowed)))
        return Found(
            target, {name: _text(value, name) for name, value in zip(node.names, values, strict=True)}
        )

    def _add(self, route: Route[Target]) -> None:
        node, names = self._root, []
        for segment in route.template.split("/")[1:]:
            if segment.endswith(REST):
                names.append(segment[1 : -len(REST)])
                node.rest = node = node.rest or _Node()
            elif segment.startswith("{"):
                names.append(segment[1:-1])
                node.value = node = node.value or _Node()
            else:
                node = node.literals.setdefault(segment.encode(), _Node())
        if route.method in node.targets:
            raise ValueError(f"{route.method} {route.template} is declared twice")
        node.targets[route.method] = route.target
        node.names = tuple(names)


def _walk(
    node: _Node[Target], segments: Sequence[bytes], place: int, values: tuple[bytes, ...]
) -> tuple[_Node[Target], tuple[bytes, ...]] | None:
    if place == len(segments):
        return (node, values) if node.targets else None
    segment = segments[place]
    literal = node.literals.get(segment)
    if literal is not None and (found := _walk(literal, segments, place + 1, values)):
        return found
    if not segment:
        return None
    if node.value is not None and (found := _walk(node.value, segments, place + 1, (*values, segment))):
        return found
    if node.rest is not None:
        return node.rest, (*values, b"/".join(segments[place:]))
    return None


def _text(raw: bytes, name: str) -> str:
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"expected percent-encoded UTF-8, got {raw[:40].decode('ascii', 'replace')!r}", field=name
        ) from error


def names_of(template: str) -> list[str]:
    """The values in a template, in order."""
    return [one.strip("{}").removesuffix(":path") for one in template.split("/") if one.startswith("{")]
