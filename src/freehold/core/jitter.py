"""Pauses that differ, so that many who wait do not all come back at one moment.

Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
"""

from random import Random

_RANDOM = Random()
"""Its own: an application, or a test, that seeds or watches the shared one is not disturbed, nor do its processes wait alike."""


def jittered(pause_s: float) -> float:
    """Half to all of `pause_s`, in seconds."""
    return pause_s * _RANDOM.uniform(0.5, 1.0)
