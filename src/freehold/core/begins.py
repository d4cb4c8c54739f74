"""What a provider's calls may offer besides being entered: asking for an answer without a coroutine. Values and ports only.

Not here: the provider itself (ports.py), and what comes of a stream after its beginning, which is poured (`Pours`).
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Done: TypeAlias = Callable[[T | BaseException], None]
HangUp: TypeAlias = Callable[[], None]


class Begins(Protocol[T_co]):
    """A call or a forward that is not entered yet."""

    def begin(self, done: "Done[T_co]") -> HangUp | None:
        """Asks at once. `done` hears later, once, of the answer (of a stream: when some of it is there) or of what entering would have
        raised; not at all if what comes back was called before, which hangs up. None where something has to be waited for first: nothing was done then.
        """
        ...
