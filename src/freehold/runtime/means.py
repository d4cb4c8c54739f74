"""Runtime: what turns work with. A process has one."""

from msgspec import Struct, field

from freehold.core.outside import ExpectedEvents
from freehold.core.places import ToolPlaces
from freehold.core.ports import Clock, Principals
from freehold.core.session_log import SessionLog
from freehold.runtime.alarms import Alarms
from freehold.runtime.declared import Declarations
from freehold.runtime.equipment import Equipments
from freehold.runtime.journal import OnPoint, no_points
from freehold.runtime.live import Live
from freehold.runtime.model_step import Gateway, RetryPolicy
from freehold.runtime.offload import Results
from freehold.runtime.tools import ToolSet


class Means(Struct, frozen=True, kw_only=True):
    """All that a turn works with; the same for every session of a process."""

    log: SessionLog
    gateway: Gateway
    declarations: Declarations
    tools: ToolSet
    results: Results
    principals: Principals
    live: Live
    clock: Clock
    equipments: Equipments
    places: ToolPlaces
    expecting: ExpectedEvents
    retries: RetryPolicy = RetryPolicy()
    on_point: OnPoint = no_points
    alarms: Alarms = field(default_factory=Alarms)
