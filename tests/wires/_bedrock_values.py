"""What the tests of Bedrock's Converse share."""

import json
from pathlib import Path
from typing import Any

from freehold.core.messages import Bytes, ModelRequest
from freehold.wires.bedrock_converse import WIRE
from tests.wires._values import PROVIDER

NAME = "bedrock_converse"
GOLDEN = Path(__file__).parent.parent / "golden" / NAME
HELLO = Bytes(b"hello")
EMPTY = ModelRequest(model="", messages=())


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def asking(*content: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": list(content)}], **more}).encode()


def encoded(request: ModelRequest) -> Any:
    return json.loads(WIRE.encode_request(request, provider=PROVIDER))
