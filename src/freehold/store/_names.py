"""Store: what is said of a declared resource that is not there: which ones have names like it, or which ones there are."""

import difflib
from typing import Final

from freehold.core.errors import NotFound
from freehold.core.resources import Kind
from freehold.store.database import Database

NAMES_TOLD_MAX: Final = 3
NAMES_COMPARED_MAX: Final = 1000

_NAMES: Final = """
SELECT name FROM resources WHERE tenant = $1 AND kind = $2 AND NOT archived ORDER BY name LIMIT $3
"""


async def missing(
    database: Database, tenant: str, kind: Kind, name: str, version: int | None = None
) -> NotFound:
    rows = await database.fetch("looking for near names", _NAMES, tenant, kind, NAMES_COMPARED_MAX)
    names = [row["name"] for row in rows]
    if version is not None and name in names:
        return NotFound(f"{kind} {name!r} has no version {version}")
    near = difflib.get_close_matches(name[:80], names, NAMES_TOLD_MAX)
    told = f"near: {', '.join(near)}" if near else _known(kind, names)
    return NotFound(f"no {kind} {name[:80]!r}; {told}")


def _known(kind: Kind, names: list[str]) -> str:
    if not names:
        return f"there is no {kind} at all yet"
    more = len(names) - NAMES_TOLD_MAX
    return f"known: {', '.join(names[:NAMES_TOLD_MAX])}{f' and {more} more' if more > 0 else ''}"
