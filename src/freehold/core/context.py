"""What of a session's conversation a model is shown: the policy that an agent declares. Values only; runtime/context.py carries it out."""

from typing import Literal

from msgspec import Struct


class Context(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Above `tokens_max` tokens (without it: four fifths of what the model is known to take) the older part gives way: to a
    `summary` that `summary_model` (without it: the agent's) writes, or to nothing (`window`). `none`: never. Nothing is taken out
    of the log.

    The latest `keep_messages`, or with `keep_turns` those since so many inputs, stay as they are; fewer where they are more than half of what
    there may be. With `tool_results_full`, of results older than about the latest so many only `tool_result_chars` are shown.
    A result larger than `tool_result_bytes_max` is kept aside, and its beginning shown with a handle to read on.
    """

    strategy: Literal["summary", "window", "none"] = "summary"
    tokens_max: int | None = None
    keep_messages: int = 20
    keep_turns: int | None = None
    tool_results_full: int | None = None
    tool_result_chars: int = 400
    tool_result_bytes_max: int = 64 * 1024
    summary_model: str | None = None
    summary_instructions: str | None = None


class Reach(Struct, frozen=True):
    """What a model is known to take, input and output together. `is_language_model` is false where declared rules answer."""

    context_tokens: int | None = None
    is_language_model: bool = True
