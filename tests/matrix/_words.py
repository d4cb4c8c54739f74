"""What an application asks and hears, in no vendor's words: clients say it through their SDKs, scripted vendors tell it back."""

from typing import Any, Literal, TypeAlias

from msgspec import Struct

Stop: TypeAlias = Literal["end", "length", "tools", "stop_sequence", "refusal"]
Cause: TypeAlias = Literal[
    "bad_request",
    "context_too_long",
    "failed",
    "not_found",
    "overloaded",
    "rate_limited",
    "too_large",
    "unauthenticated",
]


class Image(Struct, frozen=True):
    """A PNG's bytes, or an address."""

    data: bytes = b""
    url: str = ""


class Document(Struct, frozen=True):
    """A PDF."""

    data: bytes
    name: str


Content: TypeAlias = tuple[str | Image | Document, ...]


class Call(Struct, frozen=True):
    """`arguments` as the model wrote them."""

    id: str
    name: str
    arguments: str


class Thought(Struct, frozen=True):
    text: str
    seal: str = ""


class User(Struct, frozen=True):
    content: Content


class Assistant(Struct, frozen=True):
    text: str = ""
    calls: tuple[Call, ...] = ()
    thoughts: tuple[Thought, ...] = ()


class Result(Struct, frozen=True):
    call_id: str
    content: Content
    failed: bool = False


class Results(Struct, frozen=True):
    results: tuple[Result, ...]


class Again(Struct, frozen=True):
    """An earlier answer, given back exactly as the SDK gave it; to the other side it is an Assistant."""

    native: Any
    turn: Assistant


Turn: TypeAlias = User | Assistant | Results | Again


class Tool(Struct, frozen=True):
    """Without `parameters`, a tool that takes none."""

    name: str
    description: str
    parameters: dict[str, Any] | None = None


class Ask(Struct, frozen=True, kw_only=True):
    """`marked`: the system's text ends a prefix to be cached. `choice` is a mode or a tool's name. `stream` is how it is asked."""

    turns: tuple[Turn, ...]
    system: str = ""
    marked: bool = False
    tools: tuple[Tool, ...] = ()
    choice: str | None = None
    parallel: bool | None = None
    schema: dict[str, Any] | None = None
    effort: Literal["low", "medium", "high"] | None = None
    stop: tuple[str, ...] = ()
    tokens_max: int = 8000
    stream: bool = False


class Usage(Struct, frozen=True):
    """`input` and `output` are all of it; the others are parts of them."""

    input: int = 120
    output: int = 30
    cached: int = 0
    written: int = 0
    reasoning: int = 0


class Answer(Struct, frozen=True, kw_only=True):
    text: str = ""
    calls: tuple[Call, ...] = ()
    thoughts: tuple[Thought, ...] = ()
    refusal: str = ""
    stop: Stop = "end"
    stop_sequence: str = ""
    usage: Usage = Usage()


class Said(Struct, frozen=True):
    """What an SDK made of an answer, and the object to give back to it in the next turn."""

    answer: Answer
    native: Any

    def again(self) -> Again:
        answer = self.answer
        return Again(self.native, Assistant(answer.text, answer.calls, answer.thoughts))


class Failure(Struct, frozen=True):
    """What an SDK raised: its class, the status (None in the middle of a stream), and when to try again."""

    kind: str
    status: int | None
    retry_after: str | None
    message: str
