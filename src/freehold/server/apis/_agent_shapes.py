"""Agents as Claude Managed Agents' API shows and takes them: models, custom tools. Source: the `anthropic` SDK's types, beta.

What is refused is refused by its path: what Freehold has no counterpart for must not seem to be there.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

from msgspec import Struct, UnsetType

from freehold.core.errors import BadRequest, Unsupported
from freehold.core.resources import Agent, CustomTool
from freehold.core.validation import convert

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")

Level = Literal["low", "medium", "high", "xhigh", "max"]


class EffortRef(Struct, frozen=True, forbid_unknown_fields=True):
    type: Level


class ModelRef(Struct, frozen=True, forbid_unknown_fields=True):
    """A model, as an object. A reasoning model is asked with `effort`."""

    id: str
    effort: Level | EffortRef | None = None
    speed: Literal["standard", "fast"] | None = None
    inference_geo: str | None = None


class Identity(Struct, frozen=True):
    """Who runs act as: here, whoever began the session."""

    type: str


Model = str | ModelRef


def model_of(given: Model | UnsetType, *, field: str = "model") -> dict[str, Any]:
    """The fields of core.resources.Agent that it says."""
    if isinstance(given, UnsetType):
        return {}
    if isinstance(given, str):
        return {"model": given}
    if given.speed == "fast":
        raise Unsupported("there is no fast mode; leave it out", field=f"{field}.speed")
    if given.inference_geo is not None:
        raise Unsupported(
            "where requests may go is said by labels of keys and agents (docs/residency.md)",
            field=f"{field}.inference_geo",
        )
    effort = given.effort.type if isinstance(given.effort, EffortRef) else given.effort
    return {"model": given.id} | ({} if effort is None else {"reasoning_effort": effort})


def custom_tools_of(
    given: Sequence[dict[str, Any]] | None, *, field: str = "tools"
) -> tuple[CustomTool, ...]:
    """Raises Unsupported for tools that Freehold would have to run in a sandbox or by MCP."""
    found: list[CustomTool] = []
    for place, one in enumerate(given or ()):
        path = f"{field}[{place}]"
        if one.get("type") != "custom":
            raise Unsupported(
                f"expected custom, got {str(one.get('type'))[:80]!r}; declare other tools as resources and name them in freehold.tools",
                field=f"{path}.type",
            )
        tool = convert({name: value for name, value in one.items() if name != "type"}, CustomTool, root=path)
        if tool.input_schema.get("type") != "object":
            raise BadRequest("expected a JSON Schema of type object", field=f"{path}.input_schema.type")
        if tool.name in (other.name for other in found):
            raise BadRequest(f"{tool.name!r} is given twice", field=f"{path}.name")
        found.append(tool)
    return tuple(found)


def refuse_unserved(body: Any, *, field: str = "") -> None:
    """`mcp_servers`, `skills`, and where the body has them `multiagent` and another identity than the session's."""
    for name in ("mcp_servers", "skills"):
        if getattr(body, name):
            raise Unsupported(
                "declare tools as resources and name them in freehold.tools", field=field + name
            )
    if getattr(body, "multiagent", None) is not None:
        raise Unsupported(
            "declare a tool of the type agent for each subagent, and name it in freehold.tools",
            field=f"{field}multiagent",
        )
    identity: Identity | None = getattr(body, "execution_identity", None)
    if identity is not None and identity.type != "service_account":
        raise Unsupported(
            "a session acts with the rights of whoever began it", field=f"{field}execution_identity.type"
        )


def view(agent: Agent, version: int, *, model: str | None = None) -> dict[str, Any]:
    """As sessions and threads show the agent that they run."""
    return {
        "id": agent.name,
        "type": "agent",
        "name": agent.title or agent.name,
        "version": version,
        "model": model_view(agent, model=model),
        "system": agent.instructions or None,
        "description": agent.description or None,
        "tools": tools_view(agent),
        "skills": [],
        "mcp_servers": [],
        "multiagent": None,
        "execution_identity": {"type": "service_account"},
    }


def model_view(agent: Agent, *, model: str | None = None) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": model or agent.model, "speed": "standard"}
    if agent.reasoning_effort in EFFORTS:
        shown["effort"] = {"type": agent.reasoning_effort}
    return shown


def tools_view(agent: Agent) -> list[dict[str, Any]]:
    return [
        {
            "type": "custom",
            "name": one.name,
            "description": one.description,
            "input_schema": one.input_schema,
        }
        for one in agent.custom_tools
    ]
