"""Hostile input to every wire: what vendors and clients really say, spoilt. Decoders raise the heart's errors and no others, in bounded time.

Few examples here; `scripts/fuzz --minutes N` goes on for as long as one likes, with new ones each round.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold import wires
from freehold.core.errors import FreeholdError, Unavailable
from freehold.core.ports import EmbeddingWire
from tests.matrix._features import FEATURES
from tests.matrix._world import vendors
from tests.wires.test_paths import BODIES

GOLDEN = Path(__file__).parent.parent / "golden"
CPU_S_MAX = 2.0
"""Of one decoding, whatever comes: a hundred times what the largest takes."""

DEEP = [b"[" * 3_000, b'{"a":' * 3_000, b'{"content":[' * 2_000]
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]), st.just({}),
    st.sampled_from([2**63, -(2**63) - 1, 1e308, "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"), "\x00"]),
    st.sampled_from(["text", "image", "tool_use", "function", "assistant", "tool", "message_start", "data:image/png;base64,="]),
)  # fmt: skip

every_wire = pytest.mark.parametrize("name", wires.names())


def embeddings() -> dict[str, EmbeddingWire]:
    found = (import_module(f"freehold.wires.{one.name}") for one in iter_modules(wires.__path__))
    return {module.__name__: module.EMBEDDINGS for module in found if hasattr(module, "EMBEDDINGS")}


@cache
def said(name: str) -> list[bytes]:
    """What clients and vendors of a wire say, well formed: golden files, and the matrix's conversations."""
    told = [path.read_bytes() for path in sorted((GOLDEN / name).iterdir())]
    told.append(json.dumps(BODIES[name]).encode())
    if name in vendors():
        driver = vendors()[name]
        for feature in FEATURES.values():
            answer = feature.answer
            if len(answer.text) < 1_000:
                told += [b"".join(driver.pieces(answer)), driver.whole(answer)[0].partition(b"\r\n\r\n")[2]]
    return told


@pytest.fixture(scope="module", autouse=True)
def _gathered() -> None:
    """Before hypothesis counts: the drivers' SDKs draw chance while they are imported."""
    for name in wires.names():
        said(name)


@st.composite
def spoilt(draw: Callable[..., Any], name: str) -> bytes:
    data: bytes = draw(st.sampled_from(said(name)))
    if data.startswith(b"{") and draw(st.booleans()):
        return _other_tree(draw, data)
    for _ in range(draw(st.integers(1, 4))):
        data = _other_bytes(draw, data)
    return data


def _other_tree(draw: Callable[..., Any], data: bytes) -> bytes:
    """One value of the JSON is another, gone, twice as deep, or under another name."""
    tree = json.loads(data)
    holder, key = draw(st.sampled_from(list(_places(tree))))
    match draw(st.sampled_from(["other", "gone", "moved", "nested"])):
        case "other":
            holder[key] = draw(JUNK)
        case "gone":
            del holder[key]
        case "moved" if isinstance(holder, dict):
            holder[draw(st.text(max_size=6))] = holder.pop(key)
        case _:
            holder[key] = [holder[key]]
    return json.dumps(tree).encode()


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _other_bytes(draw: Callable[..., Any], data: bytes) -> bytes:
    start = draw(st.integers(0, len(data)))
    end = min(len(data), start + draw(st.integers(0, 12)))
    put = draw(st.one_of(st.binary(max_size=12), st.sampled_from([*DEEP, data[start : start + 400], b"\n\n", b"\xff\xfe"])))  # fmt: skip
    return data[:start] + put + data[end:]


def holds(decode: Callable[[], object]) -> None:
    """Raises only what is the heart's, and soon."""
    began = time.process_time()
    with suppress(FreeholdError):
        decode()
    assert time.process_time() - began < CPU_S_MAX


def _drained(decoder: Any, data: bytes, at: int) -> None:
    decoder.feed(data[:at])
    decoder.feed(data[at:])
    decoder.end()


@every_wire
@given(data=st.data())
def test_spoilt_requests_raise_the_hearts_errors_alone(name: str, data: st.DataObject) -> None:
    wire, body = wires.named(name), data.draw(spoilt(name))
    holds(lambda: wire.decode_request(body))
    holds(lambda: wires.path_in(wire, body, "messages[0].content[0]"))


@every_wire
@given(data=st.data())
def test_what_is_read_of_a_spoilt_request_is_encoded_or_refused(name: str, data: st.DataObject) -> None:
    """For every vendor: what a decoder lets through must not break another wire."""
    wire, body = wires.named(name), data.draw(spoilt(name))
    try:
        request = wire.decode_request(body)
    except FreeholdError:
        return
    for other in map(wires.named, wires.names()):
        holds(lambda other=other: other.encode_request(request, provider="p"))  # type: ignore[misc]


@pytest.mark.parametrize(
    "body",
    [
        b'{"output":{"message":{"role":"assistant","content":[]}},"\x80metrics":{}}',
        b'{"output":{"message":{"role":"assistant","content":[]}},"usage":{"inputTokens":1,"outputTokens":1,"\x80":1}}',
    ],
)
def test_a_name_that_is_no_utf_8_is_no_converse_answer(body: bytes) -> None:
    with pytest.raises(Unavailable, match="not a Converse answer"):
        wires.named("bedrock_converse").decode_response(body, provider="p")


@every_wire
@given(data=st.data())
def test_spoilt_answers_raise_the_hearts_errors_alone(name: str, data: st.DataObject) -> None:
    wire, body = wires.named(name), data.draw(spoilt(name))
    holds(lambda: wire.decode_response(body, provider="p"))
    holds(lambda: wire.usage_of(body))
    status = data.draw(st.sampled_from([200, 400, 401, 404, 413, 429, 500, 529, 599]))
    header = st.sampled_from([
        "retry-after",
        "retry-after-ms",
        "date",
        "x-amzn-errortype",
        "x-amzn-requestid",
    ])
    headers = data.draw(st.dictionaries(header, st.text(max_size=30), max_size=3))
    assert isinstance(wire.decode_error(status, headers, body), FreeholdError)


@every_wire
@given(data=st.data())
def test_spoilt_streams_raise_the_hearts_errors_alone(name: str, data: st.DataObject) -> None:
    wire, body = wires.named(name), data.draw(spoilt(name))
    at = data.draw(st.integers(0, len(body)))
    holds(lambda: _drained(wire.stream_decoder(provider="p"), body, at))
    tap = wire.usage_tap()
    holds(lambda: (tap.feed(body[:at]), tap.feed(body[at:]), tap.usage, tap.finished))


@pytest.mark.parametrize("name", embeddings())
@given(data=st.data())
def test_spoilt_embeddings_raise_the_hearts_errors_alone(name: str, data: st.DataObject) -> None:
    wire = embeddings()[name]
    body = {"model": "m", "input": ["a", "b"], "inputText": "a", "texts": ["a"], "input_type": "search_query",
            "content": {"parts": [{"text": "a"}]}, "dimensions": 8, "encoding_format": "base64"}  # fmt: skip
    spoilt_body = _other_tree(data.draw, json.dumps(body).encode())
    holds(lambda: wire.decode_request(spoilt_body))
    holds(lambda: wire.decode_request(_other_bytes(data.draw, spoilt_body)))
