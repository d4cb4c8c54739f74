"""What the matrix asks of every pair of client and vendor: one conversation a feature."""

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from msgspec import Struct, structs

from tests.matrix._words import (
    Answer,
    Ask,
    Assistant,
    Call,
    Cause,
    Document,
    Image,
    Result,
    Results,
    Said,
    Thought,
    Tool,
    Usage,
    User,
)

Mode: TypeAlias = Literal["whole", "stream"]
BOTH: Final[tuple[Mode, ...]] = ("whole", "stream")
STREAM: Final[tuple[Mode, ...]] = ("stream",)
WHOLE: Final[tuple[Mode, ...]] = ("whole",)


class Feature(Struct, frozen=True, kw_only=True):
    """`then` goes on from what the SDK said; `elsewhere`: with another vendor than the one who said it.

    `chunk_bytes` cuts a stream anew, wherever that is; `comments` come between its events.
    """

    ask: Ask = Ask(turns=(User(("Hello",)),))
    answer: Answer = Answer(text="Hello there")
    then: Callable[[Said], Ask] | None = None
    elsewhere: bool = False
    modes: tuple[Mode, ...] = BOTH
    chunk_bytes: int | None = None
    comments: bool = False


class Broken(Struct, frozen=True, kw_only=True):
    """A stream that begins well. Without `message` the connection is cut."""

    message: str | None = None


# The smallest PNG: one pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415478da63606060000000040001a37a7c5b0000000049454e44ae426082"
)
PDF = b"%PDF-1.4\n%%EOF\n"
PARAMETERS = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
SCHEMA = {**PARAMETERS, "additionalProperties": False}
STOCK = Tool("stock", "How many are there?", PARAMETERS)
NOW = Tool("now", "What time is it?")
ONE = Call("call_1", "stock", '{"sku":"4482"}')
TWO = Call("call_2", "stock", '{"sku":"5120"}')
THREE = Call("call_3", "now", "{}")
HOW_MANY = User(("How many?",))
THINKING = (Thought("First the sums, then the answer.", "U0VBTA=="),)
SHORT = "Grüße aus 上海 🌍: naïve café, e\u0301, \u202eright to left\u202c, 👩‍👩‍👧."


def _asked(*turns: object, **more: object) -> Ask:
    return Ask(turns=turns, **more)  # type: ignore[arg-type]


def _with_results(*results: Result) -> Ask:
    calls = tuple(call for call in (ONE, TWO) if call.id in {result.call_id for result in results})
    return _asked(HOW_MANY, Assistant("Let me look.", calls), Results(results), tools=(STOCK,))


def _goes_on(said: Said) -> Ask:
    return _asked(User(("Think.",)), said.again(), User(("And then?",)), effort="medium")


def _goes_on_with_result(said: Said) -> Ask:
    results = Results((Result(ONE.id, ("seven",)),))
    return _asked(HOW_MANY, said.again(), results, tools=(STOCK,), effort="medium")


def _calls_back(said: Said) -> Ask:
    results = Results(tuple(Result(call.id, (f"result of {call.id}",)) for call in said.answer.calls))
    return _asked(HOW_MANY, said.again(), results, tools=(STOCK, NOW))


TOOLS = _asked(HOW_MANY, tools=(STOCK, NOW))
CALLS = Answer(calls=(ONE,), stop="tools")

FEATURES: dict[str, Feature] = {
    "text": Feature(),
    "system": Feature(ask=_asked(User(("Hello",)), system="Be brief.")),
    "several turns": Feature(
        ask=_asked(User(("One", "two")), Assistant("Three"), User(("Four",))), modes=WHOLE
    ),
    "tool": Feature(ask=TOOLS, answer=CALLS),
    "tool after text": Feature(ask=TOOLS, answer=structs.replace(CALLS, text="Let me look.")),
    "parallel tools": Feature(
        ask=TOOLS, answer=Answer(calls=(ONE, TWO, THREE), stop="tools"), then=_calls_back
    ),
    "tool without parameters": Feature(
        ask=TOOLS, answer=Answer(calls=(THREE,), stop="tools"), then=_calls_back
    ),
    "empty arguments": Feature(
        ask=TOOLS, answer=Answer(calls=(Call("call_4", "now", ""),), stop="tools"), then=_calls_back
    ),
    "invalid arguments": Feature(
        ask=TOOLS,
        answer=Answer(calls=(Call("call_5", "stock", '{"sku": 44'),), stop="tools"),
        then=_calls_back,
    ),
    "tool result": Feature(ask=_with_results(Result(ONE.id, ("seven",)), Result(TWO.id, ("none",)))),
    "tool result, failed": Feature(
        ask=_with_results(Result(ONE.id, ("no such sku",), failed=True)), modes=WHOLE
    ),
    "tool result with an image": Feature(
        ask=_with_results(Result(ONE.id, ("a chart", Image(PNG)))), modes=WHOLE
    ),
    "tool result, empty": Feature(ask=_with_results(Result(ONE.id, ("",))), modes=WHOLE),
    "tool choice, required": Feature(
        ask=structs.replace(TOOLS, choice="required"), answer=CALLS, modes=WHOLE
    ),
    "tool choice, named": Feature(ask=structs.replace(TOOLS, choice="stock"), answer=CALLS, modes=WHOLE),
    "tool choice, none": Feature(ask=structs.replace(TOOLS, choice="none"), modes=WHOLE),
    "tool choice, one at a time": Feature(
        ask=structs.replace(TOOLS, parallel=False), answer=CALLS, modes=WHOLE
    ),
    "image, base64": Feature(ask=_asked(User(("What is it?", Image(PNG))))),
    "image, address": Feature(
        ask=_asked(User(("What is it?", Image(url="https://example.com/a.png")))), modes=WHOLE
    ),
    "document": Feature(ask=_asked(User(("Sum up.", Document(PDF, "report.pdf")))), modes=WHOLE),
    "structured output": Feature(ask=_asked(HOW_MANY, schema=SCHEMA), answer=Answer(text='{"sku":"4482"}')),
    "reasoning": Feature(
        ask=_asked(User(("Think.",)), effort="medium"),
        answer=Answer(text="So.", thoughts=THINKING, usage=Usage(reasoning=12)),
        then=_goes_on,
    ),
    "reasoning, then a tool": Feature(
        ask=_asked(HOW_MANY, tools=(STOCK,), effort="medium"),
        answer=Answer(calls=(ONE,), thoughts=THINKING, stop="tools"),
        then=_goes_on_with_result,
    ),
    "reasoning, then another vendor": Feature(
        ask=_asked(User(("Think.",)), effort="medium"),
        answer=Answer(text="So.", thoughts=THINKING),
        then=_goes_on,
        elsewhere=True,
    ),
    "stop sequence": Feature(
        ask=_asked(User(("Count.",)), stop=("END", "\n\n")),
        answer=Answer(text="One, two", stop="stop_sequence", stop_sequence="END"),
    ),
    "max tokens": Feature(
        ask=_asked(User(("Count.",)), tokens_max=17), answer=Answer(text="One, two", stop="length")
    ),
    "usage": Feature(
        answer=Answer(text="So.", usage=Usage(1200, 345, cached=1000, written=50, reasoning=300))
    ),
    "refusal": Feature(answer=Answer(refusal="I can't help with that.", stop="refusal")),
    "prompt cache mark": Feature(
        ask=_asked(User(("Hello",)), system="A long text.", marked=True),
        answer=Answer(text="Hello", usage=Usage(written=100)),
        modes=WHOLE,
    ),
    "unicode": Feature(ask=_asked(User((SHORT,))), answer=Answer(text=SHORT, calls=(ONE,), stop="tools")),
    "unicode split across chunks": Feature(
        answer=Answer(text=SHORT, calls=(ONE,), thoughts=THINKING, stop="tools"), modes=STREAM, chunk_bytes=1
    ),
    "long lines": Feature(answer=Answer(text="Lorem ipsum 🌍 " * 20_000), modes=STREAM),
    "keep-alive comments": Feature(modes=STREAM, comments=True),
}

MESSAGE = "expected a positive number, and got -1"
CAUSES: tuple[Cause, ...] = (
    "bad_request",
    "context_too_long",
    "failed",
    "not_found",
    "overloaded",
    "rate_limited",
    "too_large",
    "unauthenticated",
)
ABOUT_THE_REQUEST = ("bad_request", "context_too_long", "not_found", "too_large")
"""Of these the vendor's own words are shown; of the others they may hold what is not the client's business."""

BROKEN: dict[str, Broken] = {
    "error in the middle": Broken(message="The model is overloaded."),
    "cut stream": Broken(),
}
