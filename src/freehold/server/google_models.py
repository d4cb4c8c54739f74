"""Server: the list of models as Google's API tells it, page by page. Source: https://ai.google.dev/api/models.

Not here: which models there are (gateway/listing.py), and the doors that ask (google.py, apis/models.py).
"""

from base64 import b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from freehold.core.errors import BadRequest, NotFound
from freehold.core.ports import ModelInfo

PAGE_MODELS: Final = 50
PAGE_MODELS_MAX: Final = 1000
"""Both as the vendor has them; who asks for more gets the most."""

WRITES: Final = ("generateContent", "streamGenerateContent", "countTokens")
EMBEDS: Final = ("embedContent", "batchEmbedContents")


class Page(Struct, frozen=True):
    size: int | None = None
    after: str | None = None


def page_of(size: str | None, token: str | None) -> Page:
    """Raises BadRequest. A token is the name that the page before ended with, so that a list may change in between."""
    if size and not (size.isascii() and size.isdecimal() and len(size) < 10):
        raise BadRequest(f"expected a number, got {size[:40]!r}", field="pageSize")
    if not token:
        return Page(int(size or 0) or None)
    try:
        after = b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise BadRequest("expected a nextPageToken of this list", field="pageToken") from error
    return Page(int(size or 0) or None, after)


def listed(models: Sequence[ModelInfo], page: Page) -> dict[str, Any]:
    """`models` are sorted by provider and name."""
    provider, _, name = (page.after or "").partition("/")
    start = 0 if page.after is None else bisect_right(models, (provider, name), key=_place)
    end = start + min(page.size or PAGE_MODELS, PAGE_MODELS_MAX)
    shown: dict[str, Any] = {"models": [told(one) for one in models[start:end]]}
    if end < len(models):
        shown["nextPageToken"] = urlsafe_b64encode(_full_name(models[end - 1]).encode()).decode()
    return shown


def found(models: Sequence[ModelInfo], name: str) -> dict[str, Any]:
    """By its full name, else the first that has it as its provider's own. Raises NotFound."""
    exact = next((one for one in models if _full_name(one) == name), None)
    one = exact or next((one for one in models if one.name == name), None)
    if one is None:
        raise NotFound(f"no model {name[:200]!r} is listed", field="name")
    return told(one)


def told(info: ModelInfo) -> dict[str, Any]:
    name = _full_name(info)
    fields = {
        "name": f"models/{name}",
        "displayName": info.display_name or name,
        "supportedGenerationMethods": EMBEDS if info.embeds else WRITES,
        "inputTokenLimit": info.context_tokens,
        "outputTokenLimit": info.output_tokens_max,
        "thinking": info.reasoning,
    }
    return {field: value for field, value in fields.items() if value is not None}


def _full_name(info: ModelInfo) -> str:
    return f"{info.provider}/{info.name}"


def _place(info: ModelInfo) -> tuple[str, str]:
    return (info.provider, info.name)
