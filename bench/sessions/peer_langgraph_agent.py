"""LangGraph with its PostgreSQL checkpointer: an agent's turn, as ours in engine.py. `python peer_langgraph_agent.py URL AT_ONCE`

A model that answers at once asks five times for a tool that does nothing, and is done: 11 steps. The graph is the one of its own guides
(https://docs.langchain.com/oss/python/langgraph/quickstart): a node for the model, a `ToolNode`, and `tools_condition` between them.
"""

import asyncio
import sys

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from peer_langgraph import serve

CALLS = 5


@tool
async def noop() -> str:
    """Does nothing."""
    return "ok"


async def model(state: MessagesState) -> dict:
    """Each round adds an answer and a result to what the user said."""
    done = len(state["messages"]) // 2
    if done < CALLS:
        call = {"name": "noop", "args": {}, "id": f"call_{done}"}
        return {"messages": [AIMessage("", tool_calls=[call])]}
    return {"messages": [AIMessage("Done.")]}


def graph_of(saver: AsyncPostgresSaver):
    graph = StateGraph(MessagesState)
    graph.add_node("model", model)
    graph.add_node("tools", ToolNode([noop]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=saver)


def steps_of(result: MessagesState) -> int:
    steps = len(result["messages"]) - 1  # But for what the user said, each is one step's.
    assert steps == 2 * CALLS + 1, result
    return steps


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), graph_of, {"messages": [HumanMessage("Go")]}, steps_of))
