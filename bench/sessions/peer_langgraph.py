"""LangGraph with its PostgreSQL checkpointer: a graph of ten trivial nodes, durable after each. `python peer_langgraph.py URL AT_ONCE`

Runs in an environment of its own (peers.py). Its own defaults, but for `durability="sync"` (a step is on disk before the next begins, as
everybody's here) and a pool of connections in place of one.
"""

import asyncio
import sys
import uuid
from collections.abc import Callable
from typing import Any, TypedDict

from _loop import served
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

STEPS = 10
CONNECTIONS = 20


class State(TypedDict):
    n: int


async def step(state: State) -> State:
    return {"n": state["n"] + 1}


def graph_of(saver: AsyncPostgresSaver):
    graph = StateGraph(State)
    before = START
    for number in range(STEPS):
        graph.add_node(f"step_{number}", step)
        graph.add_edge(before, f"step_{number}")
        before = f"step_{number}"
    graph.add_edge(before, END)
    return graph.compile(checkpointer=saver)


async def serve(
    url: str,
    at_once: int,
    graph_of: Callable[[AsyncPostgresSaver], Any],
    first: Any,
    steps: Callable[[Any], int],
) -> None:
    """Runs of the graph from `first` on; `steps` are those of a run's result."""
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(url, min_size=CONNECTIONS, max_size=CONNECTIONS, kwargs=options) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        graph = graph_of(saver)

        async def run() -> int:
            config = {"configurable": {"thread_id": uuid.uuid4().hex}}
            return steps(await graph.ainvoke(first, config, durability="sync"))

        await served(run, at_once)


def steps_of(result: State) -> int:
    assert result["n"] == STEPS, result
    return STEPS


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), graph_of, {"n": 0}, steps_of))
