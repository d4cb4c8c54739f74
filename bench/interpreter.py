"""Which Python runs what is measured: gateway/run --python PATH, sessions/run --python PATH.

Each gets an environment of its own with what Freehold needs, of the versions that this environment has; it is made once, in
$XDG_CACHE_HOME/freehold-bench (else ~/.cache/freehold-bench). Freehold itself comes from this checkout, by PYTHONPATH.

    python bench/interpreter.py PATH      # prints that environment's program, and says on standard error what it is
"""

import hashlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "freehold-bench"
INSTALL_S = 900.0

TOLD = """
import ctypes, platform, sysconfig
NAMES = "PyAIter_Check PyArg_Parse PyErr_SyntaxLocation PyModule_GetFilename PyObject_Print PyUnicode_DecodeUTF7".split()
def unaligned(name):
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value % 16 != 0
def optimised():
    if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""):
        return True
    return platform.machine() == "x86_64" and sum(map(unaligned, NAMES)) * 2 > len(NAMES)
print(platform.python_implementation(), platform.python_version() + ",", "with" if optimised() else "without", "profile-guided optimisation")
"""
"""Debian and Ubuntu optimise by rules of their own and don't say so. It is seen where seldom used functions lie: a compiler that
knows which they are packs them, and else begins each at a multiple of 16."""


def program(python: str) -> str:
    """Of an environment of `python`'s with what Freehold needs."""
    return environment("freehold", python, _needed())


def environment(name: str, python: str, needed: Sequence[str]) -> str:
    """The program of an environment of `python`'s with what is `needed`, which is made where there is none."""
    needed = ("pip", *needed)
    digest = hashlib.sha256("\n".join((os.path.realpath(python), *needed)).encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{Path(python).name}-{digest}"
    made, done = str(folder / "bin/python"), folder / "installed"
    if not done.exists():
        print(f"installing what is needed into {folder} (once)", file=sys.stderr, flush=True)
        # Debian's own has no pip to put into an environment; this one's serves any.
        pip = [sys.executable, "-m", "pip", "--python", made, "install", "--quiet"]
        pip += ["--disable-pip-version-check", *needed]
        for command in ([python, "-m", "venv", "--clear", "--without-pip", str(folder)], pip):
            subprocess.run(command, check=True, timeout=INSTALL_S, stdout=sys.stderr)
        done.touch()
    return made


def described(python: str) -> str:
    """Its version, and whether it was built with profile-guided optimisation."""
    return subprocess.run([python, "-c", TOLD], capture_output=True, text=True, check=True).stdout.strip()


def _needed() -> list[str]:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.split(r"[^\w.-]", one)[0] for one in declared]
    return [f"{name}=={metadata.version(name)}" for name in names]


if __name__ == "__main__":
    found = program(sys.argv[1])
    print(found)
    print(described(found), file=sys.stderr)
