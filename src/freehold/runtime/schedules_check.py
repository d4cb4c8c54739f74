"""Runtime: whether a declared deployment can be what it says. Pure; whether its agent is there is for whoever can look."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from freehold.core.errors import BadRequest, TooLarge
from freehold.core.schedules import (
    DEADLINE_S_MAX,
    MESSAGES_MAX,
    Deployment,
    Once,
    content_of,
)
from freehold.runtime import schedules
from freehold.runtime.decide import money_pico
from freehold.runtime.inputs import (
    METADATA_KEY_CHARS_MAX,
    METADATA_VALUE_CHARS_MAX,
    TITLE_CHARS_MAX,
    check_content,
    check_length,
)

METADATA_COUNT_MAX: Final = 16
DESCRIPTION_CHARS_MAX: Final = 10_000

RUN_NOW: Final = "leave the schedule out and run it by hand (freehold deployments run), or give another time"

Problem = tuple[str | None, str]
"""The path in the declaration, and what is wrong there."""


def problems(deployment: Deployment) -> Iterator[Problem]:
    if not 1 <= len(deployment.messages) <= MESSAGES_MAX:
        yield "messages", f"expected 1 to {MESSAGES_MAX}, got {len(deployment.messages)}"
    for place, message in enumerate(deployment.messages[:MESSAGES_MAX]):
        try:
            check_content(content_of(message))
        except (BadRequest, TooLarge) as error:
            yield f"messages[{place}]", error.message
    if deployment.schedule is not None:
        try:
            schedules.check(deployment.schedule)
        except BadRequest as error:
            yield error.field, error.message
    deadline_s = deployment.starting_deadline_s
    if deadline_s is not None and not 0 < deadline_s <= DEADLINE_S_MAX:
        yield (
            "starting_deadline_s",
            f"expected more than 0, up to {DEADLINE_S_MAX:g} seconds, got {deadline_s}",
        )
    if deployment.agent_version is not None and deployment.agent_version < 1:
        yield "agent_version", f"expected 1 or more, got {deployment.agent_version}"
    try:
        money_pico(deployment.cost_max_usd, field="cost_max_usd")
    except BadRequest as error:
        yield error.field, error.message
    yield from _too_long(deployment)


def past_problem(deployment: Deployment, there: Deployment | None, now: datetime) -> Problem | None:
    """One time that has passed would never be run, and nobody would know. A declaration that says the same as before is not new: its time
    may have passed since."""
    schedule = deployment.schedule
    if not isinstance(schedule, Once) or schedule.at.tzinfo is None or schedule.at > now:
        return None
    if there is not None and there.schedule == schedule:
        return None
    when, seconds = schedule.at.isoformat(), (now - schedule.at).total_seconds()
    return "schedule.at", f"expected a time to come, got {when}, {seconds:,.0f} s ago: {RUN_NOW}"


def _too_long(deployment: Deployment) -> Iterator[Problem]:
    metadata = deployment.metadata
    if len(metadata) > METADATA_COUNT_MAX:
        yield "metadata", f"expected {METADATA_COUNT_MAX} entries at most, got {len(metadata)}"
    texts = [
        ("title", deployment.title, TITLE_CHARS_MAX),
        ("description", deployment.description, DESCRIPTION_CHARS_MAX),
        *(("metadata (a key)", key, METADATA_KEY_CHARS_MAX) for key in metadata),
        *((f"metadata.{key}", value, METADATA_VALUE_CHARS_MAX) for key, value in metadata.items()),
    ]
    for field, text, chars_max in texts:
        try:
            check_length(text, chars_max, field=field)
        except BadRequest as error:
            yield error.field, error.message


def check(deployment: Deployment) -> None:
    """Raises BadRequest for the first."""
    for field, problem in problems(deployment):
        raise BadRequest(problem, field=field)
