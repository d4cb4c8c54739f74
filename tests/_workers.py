"""In which order files run, and which of pytest-xdist's workers runs which.

Every second worker takes files from the end of the order, the others from its beginning; they meet in the middle. So neighbours
mostly share a worker and what is made once a worker (a server, a whole world, an SDK's clients), the longest files don't begin
last, and where the workers meet files are short, so that they end together.
"""

from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

ROOMS: Final = (
    *("chaos", "server", "matrix", "client", "wires"),  # SDKs are spoken with here
    *("core", "resources", "governance", "catalog", "telemetry", "gateway", "providers"),  # quick
    *("tools", "runtime", "store", "docs", "examples", "cli"),  # servers and processes are started here
)
PLACES: Final = {f"tests/{room}/": place for place, room in enumerate(ROOMS)}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    """What is in no room that is listed is among the quick."""
    file = item.nodeid
    return PLACES.get(file[: file.find("/", len("tests/")) + 1], PLACES["tests/core/"])


class FromBothEnds(LoadFileScheduling):
    def _assign_work_unit(self, node: WorkerController) -> None:
        if self.nodes.index(node) % 2:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FromBothEnds | None:
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # would put the files with the most tests first
    return FromBothEnds(config, log)
