"""Writes the demo's transcript into the README by running the demo on a data folder of its own: python scripts/transcript.py"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"(<!-- transcript: made by scripts/transcript\.py -->\n```text\n)(.*?)(```\n)", re.DOTALL)


def shown() -> str:
    """The transcript that stands in the README."""
    found = BLOCK.search(README.read_text())
    if found is None:
        raise SystemExit(f"{README} has no transcript's block")
    return found[2]


def steps(transcript: str) -> tuple[list[str], list[str]]:
    """What must be the same in every run: the tools and models that were asked, in any order, and the answer, line by line."""
    lines = [line for line in transcript.splitlines() if line.strip()]
    asked = sorted(line.split()[1] for line in lines if line.startswith(("  ●", "  ✗", "  ◆")))
    answer = [line.rstrip() for line in lines if not line.startswith("  ") and " · sess_" not in line]
    return asked, answer


def run(folder: Path) -> str:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    kept["PATH"] = f"{Path(sys.executable).parent}:{kept.get('PATH', '')}"
    settings = {
        "HOME": str(folder),
        "FREEHOLD_DATA": str(folder / "data"),
        "FREEHOLD_DISCOVER_LOCAL_MODELS": "false",
    }
    command = [str(Path(sys.executable).parent / "freehold"), "demo"]
    return subprocess.run(command, env=kept | settings, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        transcript = run(Path(folder)).strip("\n") + "\n"
    text = README.read_text()
    README.write_text(BLOCK.sub(lambda found: found[1] + transcript + found[3], text))


if __name__ == "__main__":
    main()
