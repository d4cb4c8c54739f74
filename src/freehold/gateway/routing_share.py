"""Gateway: how much more than one attempt a call may cost: what is done beside it is held to a share of the calls.

A call saves a share, an attempt more takes one: so a vendor that fails is not asked twice as often just then.
https://sre.google/sre-book/handling-overload/#deciding-to-retry-4Nsxm has the practice.
"""

from typing import Final

SAVED_MAX: Final = 10.0
"""What can be saved up, and what there is at the beginning, so that a quiet route may try again too."""


class Share:
    __slots__ = ("_saved", "share_max")

    def __init__(self, share_max: float) -> None:
        self.share_max = share_max
        self._saved = SAVED_MAX if share_max > 0 else 0.0

    def called(self) -> None:
        saved = self._saved + self.share_max
        self._saved = saved if saved < SAVED_MAX else SAVED_MAX

    def take(self) -> bool:
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
