"""What is declared of work that begins by itself: an agent, what is said to it, and when. Pure values.

Not here: when that is (runtime/schedules.py), what is kept of runs (core/deployments.py). Names of fields follow Kubernetes' CronJob
(`startingDeadlineSeconds`, https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/) and Temporal's schedules (`overlap`,
https://docs.temporal.io/schedule); `expression`, `timezone` and the rest are Claude Managed Agents' deployments.
"""

from datetime import datetime
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from freehold.core.environments import DEFAULT
from freehold.core.messages import Media, Text

DEPLOYMENTS_MAX: Final = 100_000
"""Of one tenant, archived ones aside."""

MESSAGES_MAX: Final = 50
EXPRESSION_CHARS_MAX: Final = 200
DEADLINE_S_MAX: Final = 366 * 86_400.0


class Cron(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="cron",
    tag_field="type",
):
    """Five fields: minute, hour, day of month, month, day of week; names (`mon`, `jan`), steps, `L`. `timezone` is IANA's name."""

    expression: str
    timezone: str


class Once(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="once",
    tag_field="type",
):
    """`at` has its offset from UTC."""

    at: datetime


Schedule: TypeAlias = Cron | Once
Missed: TypeAlias = Literal["skip", "run_once", "run_all"]
Overlap: TypeAlias = Literal["allow", "skip", "queue"]
Message: TypeAlias = str | tuple[Text | Media, ...]


class Deployment(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="deployment",
    tag_field="kind",
):
    """An agent that is set to work: by `schedule`, or by hand where there is none. Each run is a session, to which `messages` are said.

    It acts with the rights, at that moment, of whoever declared its current version. `agent_version`: that one; without, the
    newest at each run. `cost_max_usd` bounds what each run's session may cost.

    A slot is a time at which the schedule says to run. `missed`: what becomes of slots for which nobody was there (no worker, paused):
    `skip` none is run later, `run_once` the last of them, `run_all` each, the newest SLOTS_KEPT_MAX of them. `overlap`: what becomes of
    a slot while the former run's session is still at work: `allow` both work, `skip` it is not run, `queue` it waits. A slot
    that is older than `starting_deadline_s` is not run; without it there is no such bound, under `skip` it is ON_TIME_S.
    """

    name: str
    agent: str
    messages: tuple[Message, ...]
    agent_version: int | None = None
    title: str = ""
    description: str = ""
    metadata: dict[str, str] = {}
    environment: str = DEFAULT
    cost_max_usd: str | None = None
    schedule: Schedule | None = None
    missed: Missed = "run_once"
    overlap: Overlap = "allow"
    starting_deadline_s: float | None = None


ON_TIME_S: Final = 60.0
"""How late a slot under `missed: skip` may be begun: longer than it takes to restart a worker."""

SLOTS_KEPT_MAX: Final = 100
"""So many missed slots `run_all` makes up for."""


def content_of(message: Message) -> tuple[Text | Media, ...]:
    return (Text(message),) if isinstance(message, str) else message
