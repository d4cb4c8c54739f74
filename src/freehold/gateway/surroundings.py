"""Gateway: what a row of the catalog takes from the environment: its credential, and the parts of its address that differ (a region)."""

import re
from collections.abc import Callable
from typing import Final, TypeAlias

from msgspec import structs

from freehold.catalog.catalog import ProviderRow
from freehold.core.errors import BadRequest, NotFound, TooLarge

ResolveSecret: TypeAlias = Callable[[str], str]
"""`env:NAME` or `file:PATH` to its value. Raises NotFound."""

_PLACEHOLDER: Final = re.compile(r"\{([^{}]+)\}")
_LABEL: Final = re.compile(r"[a-z0-9-]{1,63}")
_OPTIONAL: Final = "?"
_IN_FILE: Final = "@"


def credential(row: ProviderRow, resolve: ResolveSecret) -> str | None:
    """The first of `row.api_key` that is there; one made of several (`A:B:C?`) needs all that are not optional."""
    for names in row.api_key:
        parts = [_part(name, resolve) for name in names.split(":")]
        if None not in parts:
            return ":".join(part for part in parts if part)
    return None


def _part(name: str, resolve: ResolveSecret) -> str | None:
    try:
        if name.endswith(_IN_FILE):
            path = resolve(f"env:{name.removesuffix(_IN_FILE)}")
            return resolve(f"file:{path}")
        return resolve(f"env:{name.removesuffix(_OPTIONAL)}")
    except (NotFound, BadRequest, TooLarge):  # The last two: of a file that is none.
        return "" if name.endswith(_OPTIONAL) else None


def addressed(row: ProviderRow, resolve: ResolveSecret) -> ProviderRow:
    """With `{FIRST|SECOND|otherwise}` in its address filled in: variables in capitals, and a word for where none is set.

    Raises BadRequest for a value that is no part of a host's name.
    """
    if "{" not in row.base_url:
        return row

    def filled(found: re.Match[str]) -> str:
        *names, otherwise = found[1].split("|")
        values = (_part(name, resolve) for name in names)
        value = next((one for one in values if one), otherwise)
        if _LABEL.fullmatch(value) is None:
            raise BadRequest(
                f"{' or '.join(names)} is no part of an address: {value[:40]!r}", field="base_url"
            )
        return value

    return structs.replace(row, base_url=_PLACEHOLDER.sub(filled, row.base_url))
