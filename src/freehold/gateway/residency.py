"""Gateway: where a request may go. What is labelled `eu` is asked of no model, kept in no cache and written to no log outside `eu`.

A principal has its labels from the door on (its key's, and those of the header), and sessions add their agent's and their own: labels
are only ever added. A place meets a bare label (`eu`) where every region to which what is sent there may go is called so, or its
declared labels say `eu: "true"`; and `name=value` where its labels say that. What declares nothing meets nothing. Regions are compared as
they are written: `eu-west-2` is London. Not here: which models there are (models.py), and the order of those that may be asked.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct, structs

from freehold.core.errors import BadRequest, Forbidden
from freehold.core.policy import Principal
from freehold.gateway.targets import Target

HEADER: Final = "x-freehold-labels"
LABELS_MAX: Final = 16
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}(=[A-Za-z0-9][A-Za-z0-9_.:-]{0,62})?")
_NO_LABELS: Final[Mapping[str, str]] = {}


class Place(Struct, frozen=True):
    """Where something is kept. Of the installation: as it is configured; what is not configured is nowhere."""

    regions: tuple[str, ...] = ()
    labels: Mapping[str, str] = _NO_LABELS


NOWHERE: Final = Place()


def check(labels: Sequence[str], *, field: str) -> tuple[str, ...]:
    """In order, each once. Raises BadRequest."""
    if len(labels) > LABELS_MAX:
        raise BadRequest(f"expected {LABELS_MAX} labels at most, got {len(labels)}", field=field)
    for one in labels:
        if not _LABEL.fullmatch(one):
            raise BadRequest(f"expected labels like eu or tier=gold, got {one[:80]!r}", field=field)
    return tuple(sorted(set(labels)))


def labelled(principal: Principal, headers: Mapping[str, str]) -> Principal:
    """With the labels of the header besides its own: a client can only narrow where its request may go. Raises BadRequest."""
    given = headers.get(HEADER)
    if given is None:
        return principal
    return with_labels(
        principal, check([one.strip() for one in given.split(",") if one.strip()], field=HEADER)
    )


def with_labels(principal: Principal, labels: Sequence[str]) -> Principal:
    if not labels:
        return principal
    return structs.replace(principal, residency=tuple(sorted({*principal.residency, *labels})))


def unmet(required: Sequence[str], regions: Sequence[str], labels: Mapping[str, str]) -> str | None:
    """Why what has the labels `required` may not go there; None where it may."""
    for one in required:
        name, says, value = one.partition("=")
        if labels.get(name) == (value if says else "true"):
            continue
        if not says and regions and all(region == name for region in regions):
            continue
        found = ", ".join([*regions, *(f"{name}={said}" for name, said in labels.items())]) or "not declared"
        return f"the request is labelled {one}, and where it goes is {found}"
    return None


def hold(principal: Principal, target: Target) -> None:
    """Raises Forbidden where the principal's requests may not go to `target`."""
    why = unmet(principal.residency, target.regions, target.labels)
    if why is not None:
        raise Forbidden(f"{target.provider.name}/{target.name} may not be asked: {why}")


def hold_here(
    principal: Principal, home: Place, what: str, *, field: str | None = None, instead: str = ""
) -> None:
    """Before anything of it is written down. Raises Forbidden where `what` cannot be kept in this installation; `instead` says what can
    be done.
    """
    why = unmet(principal.residency, home.regions, home.labels)
    if why is not None:
        raise Forbidden(
            f"{what} cannot be kept here: {why} (residency.regions and residency.labels of the configuration){instead}",
            field=field,
        )


def hold_together(principal: Principal, labels: Sequence[str], what: str) -> None:
    """Before something is said where it may be read, and gone on with, by requests that have only its `labels`. Raises Forbidden."""
    if missing := sorted(set(principal.residency) - set(labels)):
        raise Forbidden(f"the request is labelled {', '.join(missing)}, {what} is not: start one that is")


def within_reach(principal: Principal, target: Target) -> Target:
    """Who may be asked at once, where it is no matter which of a route's models is. Raises Forbidden where none may."""
    routed = target.route
    if routed is None:
        hold(principal, target)
        return target
    for one in routed.reachable:
        if unmet(principal.residency, one.target.regions, one.target.labels) is None:
            return one.target
    raise Forbidden(
        f"no model of the route {routed.route.name} may be asked for a request labelled {', '.join(principal.residency)}"
    )
