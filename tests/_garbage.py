"""What collecting has made lives to the end of the run: the collector of garbage is told not to look at it again.

Vendors' SDKs alone are hundreds of thousands of objects, and each full collection would go over all of them: a measured tenth
of the fast suite's time, and a quarter of the collecting of tests.
"""

import gc
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
