"""A worker process under chaos: `python -m tests.chaos._worker URL LEDGER [SEED]`. Lives until it is killed or told to stop (SIGTERM).

With a SEED it kills itself now and then at a point of a turn (after an append, before and after an effect).
"""

import asyncio
import os
import random
import signal
import sys

from freehold.core.errors import FreeholdError
from tests.chaos._place import place

DIES_ONE_IN = 120
RETRY_S = 0.2


class Dies:
    """One point in DIES_ONE_IN ends the process as a crash would."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def __call__(self, _name: str) -> None:
        if self._chance.randrange(DIES_ONE_IN) == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, ledger: str, seed: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    options = {"on_point": Dies(seed)} if seed else {}
    while not stop.is_set():
        try:
            async with place(url, ledger, **options) as here, here.worker().running():
                print("ready", flush=True)
                await stop.wait()
        except (FreeholdError, OSError):
            await asyncio.sleep(RETRY_S)  # The database is away at the start, or was at the end.


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if sys.argv[3:] else 0))
