"""Other engines' environments: each is made once, in $XDG_CACHE_HOME/freehold-bench (else ~/.cache/freehold-bench); remove it to be rid of them."""

import os
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "freehold-bench"
LANGGRAPH, LANGGRAPH_POSTGRES, DBOS = "1.2.22", "3.2.0", "3.4.0"
REQUIREMENTS = (
    f"langgraph=={LANGGRAPH}",
    f"langgraph-checkpoint-postgres=={LANGGRAPH_POSTGRES}",
    f"dbos=={DBOS}",
    "psycopg[binary]",
    "psycopg-pool",
)
NAMES = {"langgraph": f"LangGraph {LANGGRAPH}, PostgreSQL checkpointer", "dbos": f"DBOS {DBOS}"}
INSTALL_S = 900.0


def python() -> str:
    """Of an environment that has them all."""
    folder = CACHE / f"durable-{LANGGRAPH}-{DBOS}-python{sys.version_info.major}.{sys.version_info.minor}"
    program, done = folder / "bin/python", folder / "installed"
    if not done.exists():
        print(f"installing {', '.join(REQUIREMENTS)} into {folder} (once)", file=sys.stderr, flush=True)
        pip = [str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], [*pip, *REQUIREMENTS]):
            subprocess.run(command, check=True, timeout=INSTALL_S)
        done.touch()
    return str(program)
