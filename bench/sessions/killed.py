"""A worker that is killed with a hundred tool runs in flight: when the last of them is finished elsewhere. `python killed.py`

It is the test (tests/chaos/test_killed_worker.py), which also checks all histories against an outside count of effects.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from _say import say

ROOT = Path(__file__).parents[2]
TEST = "tests/chaos/test_killed_worker.py"
SAID = re.compile(
    r"(\d+) runs in flight, all finished elsewhere ([0-9.]+) s after SIGKILL \(lease ([0-9.]+) s\)"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.parse_args()
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", TEST]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = SAID.search(told.stdout)
    if told.returncode or found is None:
        raise SystemExit(told.stdout[-3000:])
    say(
        "worker killed", runs_in_flight=int(found[1]), all_finished_s=float(found[2]), lease_s=float(found[3])
    )


if __name__ == "__main__":
    main()
