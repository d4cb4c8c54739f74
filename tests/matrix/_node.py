"""The vendors' SDKs for Node, installed once beside the virtual environment; whoever has no Node is told that it is skipped."""

import shutil
import subprocess
import sys
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest

NODE = Path(__file__).parent / "node"
INSTALL_S_MAX = 110


@cache
def node_folder() -> Path:
    """Where programs find the SDKs. Skips the test where there is no Node, or nowhere to install them from."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm: the SDKs for Node are not tested here")
    wanted = (NODE / "package.json").read_bytes()
    place = Path(sys.prefix) / "share" / "freehold-matrix" / sha256(wanted).hexdigest()[:16]
    if not place.exists():
        _install(wanted, place)
    return place


def _install(wanted: bytes, place: Path) -> None:
    """All or nothing, whoever else is at it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=place.parent))
    (staged / "package.json").write_bytes(wanted)
    command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=staged, capture_output=True, text=True, timeout=INSTALL_S_MAX)
    if done.returncode != 0:
        shutil.rmtree(staged)
        pytest.skip(
            f"npm could not install the SDKs for Node, so they are not tested here: {done.stderr[-300:]}"
        )
    try:
        staged.rename(place)
    except OSError:
        shutil.rmtree(staged)
        if not place.exists():
            raise
