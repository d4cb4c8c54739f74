"""botocore as a judge of Bedrock's shapes: what it finds wrong with a request, what it reads of an answer, what it sends itself."""

import base64
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.eventstream import EventStream
from botocore.parsers import EventStreamJSONParser, create_parser
from botocore.validate import ParamValidator

MODEL = botocore.session.get_session().get_service_model("bedrock-runtime")


def valid_for_botocore(body: Any) -> str:
    """What botocore finds wrong with a request; its blobs are bytes, not base64."""
    shape = MODEL.operation_model("Converse").input_shape
    return ParamValidator().validate({"modelId": "m", **unbased(body)}, shape).generate_report()


def unbased(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: base64.b64decode(one) if key in ("bytes", "redactedContent") else unbased(one)
            for key, one in value.items()
        }
    return [unbased(one) for one in value] if isinstance(value, list) else value


def parsed_by_botocore(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    response = {"status_code": status, "headers": headers or {}, "body": body}
    return create_parser("rest-json").parse(response, MODEL.operation_model("Converse").output_shape)


def streamed_to_botocore(data: bytes) -> list[Any]:
    shape = MODEL.operation_model("ConverseStream").output_shape.members["stream"]
    chunks = SimpleNamespace(
        stream=lambda: iter([data[at : at + 7] for at in range(0, len(data), 7)]), close=lambda: None
    )
    return list(EventStream(chunks, shape, EventStreamJSONParser(), "ConverseStream"))


def asked_by_boto3(**arguments: Any) -> bytes:
    """The body that boto3 would send."""
    client = boto3.client(
        "bedrock-runtime", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    sent: list[bytes] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        sent.append(request.body)
        answered = AWSResponse(request.url, 200, {}, None)
        answered._content = b"{}"
        return answered

    client.meta.events.register("before-send.bedrock-runtime", answer)
    client.converse(modelId="m", **arguments)
    return sent[0]
