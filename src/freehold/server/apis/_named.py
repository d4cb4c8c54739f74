"""What agents, environments and deployments have in common in Claude Managed Agents' shapes: an id that is a name, beside it a name for
people, metadata that a change patches, and changes that leave out what stays.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from msgspec import UNSET, UnsetType, structs

from freehold.core import ids
from freehold.core.environments import Environment
from freehold.core.errors import BadRequest, Conflict, NotFound
from freehold.core.ids import IdSource
from freehold.core.ports import Resources, Versioned
from freehold.core.resources import NAME, Agent, Kind
from freehold.core.schedules import Deployment
from freehold.core.validation import check_limit
from freehold.runtime import inputs

PAGE_MAX: Final = 100
TITLE_CHARS_MAX: Final = 256
SLUG_CHARS_MAX: Final = 50
CHANCE_CHARS: Final = 6
_NO_LETTERS: Final = re.compile(r"[^a-z0-9]+")

Named = TypeVar("Named", Agent, Environment)
Changed = TypeVar("Changed", Agent, Environment, Deployment)


def id_and_title(name: str, chance: IdSource) -> tuple[str, str]:
    """A name that can be an id is one; of any other, an id is made that nobody has, and the name is kept as the title."""
    if NAME.fullmatch(name):
        return name, ""
    _check_title(name)
    slug = _NO_LETTERS.sub("-", name.lower()).strip("-")[:SLUG_CHARS_MAX].strip("-")
    ending = ids.new("tool", chance)[-CHANCE_CHARS:]
    return f"{slug}-{ending}".lstrip("-"), name


def renamed(one: Named, name: str | UnsetType | None) -> Named:
    """Its id stays: what changes is the title. No name leaves it as it is."""
    if not isinstance(name, str):
        return one
    _check_title(name)
    return structs.replace(one, title="" if name == one.name else name)


def _check_title(name: str) -> None:
    if not name.strip() or len(name) > TITLE_CHARS_MAX:
        raise BadRequest(
            f"expected 1 to {TITLE_CHARS_MAX} characters, not all of them spaces; got {name[:80]!r}",
            field="name",
        )


def patched(
    metadata: Mapping[str, str], patch: Mapping[str, str | None] | UnsetType | None
) -> dict[str, str] | UnsetType:
    """UNSET where nothing is given, so that it stays."""
    return UNSET if isinstance(patch, UnsetType) or patch is None else inputs.patched(metadata, patch)


def with_given(one: Changed, given: Mapping[str, Any]) -> Changed:
    """What is UNSET stays."""
    return structs.replace(one, **{name: value for name, value in given.items() if value is not UNSET})


def changeable(there: Versioned, shape: type[Named]) -> Named:
    """Raises Conflict where it is archived."""
    one = there.resource
    if not isinstance(one, shape):
        raise TypeError(f"expected {shape.__name__}, got {type(one).__name__}")
    if there.archived:
        raise Conflict(f"{shape.__name__.lower()} {one.name!r} is archived, and only read")
    return one


async def also_archived(resources: Resources, tenant: str, kind: Kind, name: str) -> Versioned:
    try:
        return await resources.get(tenant, kind, name)
    except NotFound:
        newest, *_ = await resources.versions(tenant, kind, name)
        return newest


def page_by_name(
    listed: Sequence[Versioned], *, limit: int, after: str | None
) -> tuple[Sequence[Versioned], str | None]:
    """And the name behind which the next page begins, where there is one. Raises BadRequest for a limit that is none."""
    check_limit(limit, PAGE_MAX)
    kept = sorted(
        (one for one in listed if one.resource.name > (after or "")), key=lambda one: one.resource.name
    )
    page = kept[:limit]
    return page, page[-1].resource.name if len(kept) > len(page) else None
