"""The retailer behind the demo: its products, centers, demand, stock, orders and shipments, made from one seed.

Everything here is a pure function of the constants below: no clock, no network, no global random state. Writing it
down (files, SQL) is `writers.py`; the programs that people start are one folder up.
"""

import datetime as dt
from typing import Final

AS_OF: Final = dt.date(2026, 11, 15)
"""The morning on which everything is told: sales end the day before, stock was counted at dawn."""

HISTORY_DAYS: Final = 730
FIRST_DAY: Final = AS_OF - dt.timedelta(days=HISTORY_DAYS)
SEED: Final = 4482

DATASET_VERSION: Final = "2026-11-15.1"
"""Changes whenever the same seed gives other data; written into every destination, so that it can be reused."""


def day_of(index: int) -> dt.date:
    """The date of a day counted from the first one of the history; indexes from HISTORY_DAYS on lie ahead."""
    return FIRST_DAY + dt.timedelta(days=index)


def index_of(day: dt.date) -> int:
    return (day - FIRST_DAY).days
