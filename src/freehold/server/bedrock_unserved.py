"""Server: what else Bedrock's runtime has, of which there is nothing here: invocations that outlive their call, and guardrails.

Each operation answers as AWS would where nothing of the kind was ever made, in the errors of its own service model. Source:
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html.
"""

from typing import Final
from urllib.parse import unquote_to_bytes

from freehold.core.errors import BadRequest, NotFound, Unsupported

ASYNC: Final = b"/async-invoke"
GUARDRAIL: Final = b"/guardrail/"
CHECKS: Final = b"/guardrail-checks/"
PATHS: Final = (ASYNC, GUARDRAIL, CHECKS)
_NONE_STARTED: Final = b'{"asyncInvokeSummaries":[]}'


def answer(method: bytes, path: bytes) -> bytes:
    """`path` is without a prefix of ours. Raises what there is to say."""
    match method, path:
        case b"GET", b"/async-invoke":
            return _NONE_STARTED
        case b"POST", b"/async-invoke":
            raise Unsupported("invocations that outlive their call are not served here: call InvokeModel")
        case b"GET", _ if path.startswith(ASYNC + b"/"):
            raise BadRequest(f"no invocation {_shown(path)!r} was started here", field="invocationArn")
        case b"POST", _ if path.startswith(GUARDRAIL):
            raise NotFound(f"there is no guardrail {_shown(path)!r} here", field="guardrailIdentifier")
        case b"POST", _ if path.startswith(CHECKS):
            raise Unsupported("checks of guardrails are not served here")
        case _:
            said = f"{method.decode('ascii', 'replace')} is not served at {path[:200].decode('ascii', 'replace')}"
            raise NotFound(said)


def _shown(path: bytes) -> str:
    return unquote_to_bytes(path.split(b"/")[2])[:200].decode("utf-8", "replace")
