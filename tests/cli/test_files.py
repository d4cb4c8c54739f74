"""A server takes thousands of connections, whatever its shell's limit of open files is."""

import subprocess
import sys

import pytest

ASKED = """
import resource
from freehold.cli._running import open_many
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
open_many()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], hard)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limits")
def test_the_limit_of_open_files_goes_up_as_far_as_it_may() -> None:
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    soft, hard = map(int, done.stdout.split())
    assert soft >= min(hard if hard >= 0 else 65_536, 65_536)
