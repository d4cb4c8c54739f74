"""Other engines' environments: each is made once for each interpreter (../interpreter.py)."""

import sys

from interpreter import environment

LANGGRAPH, LANGGRAPH_POSTGRES, DBOS = "1.2.22", "3.2.0", "3.4.0"
REQUIREMENTS = (
    f"langgraph=={LANGGRAPH}",
    f"langgraph-checkpoint-postgres=={LANGGRAPH_POSTGRES}",
    f"dbos=={DBOS}",
    "psycopg[binary]",
    "psycopg-pool",
)
NAMES = {
    "langgraph_agent": f"LangGraph {LANGGRAPH}, PostgreSQL checkpointer, an agent's turn",
    "langgraph": f"LangGraph {LANGGRAPH}, PostgreSQL checkpointer, ten trivial steps",
    "dbos": f"DBOS {DBOS}, ten trivial steps",
}
LIKE = {"langgraph_agent": "turn", "langgraph": "log", "dbos": "log"}
"""What of ours does the same."""


def python() -> str:
    """Of an environment that has them all, by the interpreter that runs this."""
    return environment("durable", sys.executable, REQUIREMENTS)
