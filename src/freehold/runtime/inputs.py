"""Runtime: what may be put into a session from outside, and the bounds that hold for it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from freehold.core.errors import BadRequest, TooLarge
from freehold.core.messages import Address, Bytes, Media, Text
from freehold.core.session import SessionSetup
from freehold.runtime.decide import money_pico

INPUT_BYTES_MAX: Final = 8 * 1024 * 1024
INPUT_PARTS_MAX: Final = 256
INPUTS_MAX: Final = 100
INSTRUCTIONS_CHARS_MAX: Final = 100_000
TITLE_CHARS_MAX: Final = 300
MODEL_CHARS_MAX: Final = 256
REASON_CHARS_MAX: Final = 1000
METADATA_COUNT_MAX: Final = 32
METADATA_KEY_CHARS_MAX: Final = 64
METADATA_VALUE_CHARS_MAX: Final = 512
IDEMPOTENCY_KEY_CHARS_MAX: Final = 255
EVENTS_LIMIT_MAX: Final = 1000
SESSIONS_LIMIT_MAX: Final = 200


def check_content(content: Sequence[Text | Media]) -> None:
    if not content or all(isinstance(part, Text) and not part.text.strip() for part in content):
        raise BadRequest("expected some content, got none", field="content")
    if len(content) > INPUT_PARTS_MAX:
        raise BadRequest(f"expected {INPUT_PARTS_MAX} parts at most, got {len(content)}", field="content")
    size = sum(_size(part) for part in content)
    if size > INPUT_BYTES_MAX:
        raise TooLarge(
            f"one input may have {INPUT_BYTES_MAX} bytes, this has {size}; put large data where a tool can read it",
            field="content",
        )


def check_result(content: Sequence[Text | Media]) -> None:
    """As `check_content`, but a result may be empty."""
    if content:
        check_content((*content, Text("-")))


def _size(part: Text | Media) -> int:
    match part:
        case Text():
            return len(part.text.encode())
        case Media(source=Bytes(data)):
            return len(data)
        case Media(source=Address(url)):
            return len(url)
        case Media():
            return 0


def check_length(text: str, chars_max: int, *, field: str) -> None:
    if len(text) > chars_max:
        raise BadRequest(f"expected {chars_max} characters at most, got {len(text)}", field=field)


def check_metadata(metadata: Mapping[str, str]) -> None:
    if len(metadata) > METADATA_COUNT_MAX:
        raise BadRequest(
            f"expected {METADATA_COUNT_MAX} entries at most, got {len(metadata)}", field="metadata"
        )
    for key, value in metadata.items():
        check_length(key, METADATA_KEY_CHARS_MAX, field="metadata (a key)")
        check_length(value, METADATA_VALUE_CHARS_MAX, field=f"metadata.{key}")


def patched(metadata: Mapping[str, str], patch: Mapping[str, str | None]) -> dict[str, str]:
    """None takes a key out, a text puts it in; what the patch does not name stays."""
    return {key: value for key, value in {**metadata, **patch}.items() if value is not None}


def check_setup(setup: SessionSetup | None) -> None:
    """Raises BadRequest where the agent can't be set up so."""
    if setup is None:
        return
    check_length(setup.instructions or "", INSTRUCTIONS_CHARS_MAX, field="agent.system")
    names = [one.name for one in setup.custom_tools or ()]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise BadRequest(f"{name!r} is given twice", field=f"agent.tools[{place}].name")
    money_pico(setup.cost_max_usd, field="budget.max_list_cost")


def check_idempotency_key(key: str | None) -> None:
    if key is not None and not 0 < len(key) <= IDEMPOTENCY_KEY_CHARS_MAX:
        raise BadRequest(
            f"expected 1-{IDEMPOTENCY_KEY_CHARS_MAX} characters, got {len(key)}", field="idempotency_key"
        )


def check_limit(limit: int, limit_max: int) -> None:
    if not 0 < limit <= limit_max:
        raise BadRequest(f"expected 1-{limit_max}, got {limit}", field="limit")
