"""The `rules` provider: which rule answers, which tools it calls and when, and what its templates may and may not do."""

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import BadRequest, NotFound, TooLarge, Unsupported
from freehold.core.messages import (
    JsonOutput,
    Message,
    ModelRequest,
    ModelResponse,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
    ToolSpec,
    Usage,
)
from freehold.core.resources import Rules
from freehold.core.stream import StreamEvent, TextAdded, fold
from freehold.providers._rules_plan import Calls, Plan
from freehold.providers.rules import RulesProvider, check

SHOP = {
    "name": "shop",
    "patterns": {"sku": r"\bSKU-\d+\b"},
    "vocabulary": {"dc": {"Shanghai": "SHA", "the big one": "SHA", "Rotterdam": "RTM", "rotterdam south": "RTS"}},
    "rules": [
        {
            "name": "why",
            "when": "out of stock",
            "needs": ["sku", "dc"],
            "steps": [
                {"tool": "level", "save_as": "stock", "arguments": {"key": "{{ dc }}/{{ sku }}", "n": "{{ 1 + 1 }}"}},
                {"tool": "orders", "arguments": {"sku": "{{ sku }}"}},
                {
                    "tool": "paper",
                    "save_as": "papers",
                    "for_each": "results.orders.data.items",
                    "arguments": {"id": "{{ item.id }}", "at": "{{ item.days | plus_days(1) }}"},
                },
                {"tool": "forecast", "when": "results.stock.data.count == 0", "arguments": {"plain": [1, None]}},
            ],
            "answer": (
                "{{ sku }} at {{ dc | spoken('dc') }}: {{ results.stock.data.count }}."
                "{% for paper in results.papers %} {{ paper.item.id }}={{ paper.error or paper.data.says }}{% endfor %}"
                "{{ ' forecast ' ~ results.forecast.data if results.forecast.ok else ' ' ~ results.forecast.error }}"
            ),
        },
        {"name": "sales", "when": r"sold (?P<days>\d+) days", "needs": ["dc"], "answer": "{{ dc }} {{ days }} {{ sku is defined }}"},
        {"name": "going", "when": r"to (?P<dc>[a-z ]+)", "answer": "going to {{ dc }}"},
    ],
    "otherwise": "Sorry: {{ question }}",
}  # fmt: skip

TOOLS = tuple(ToolSpec(name) for name in ("level", "orders", "paper", "forecast"))


def rules(**changed: Any) -> Rules:
    return msgspec.convert(SHOP | changed, Rules)


def one_rule(answer: str = "", **changed: Any) -> Rules:
    return rules(rules=[{"name": "only", "when": ".", "answer": answer} | changed])


PLAN = Plan(rules())


def provider(declared: Rules) -> RulesProvider:
    async def lookup(name: str) -> Rules:
        if name != declared.name:
            raise NotFound(f"there are no rules {name!r}")
        return declared

    return RulesProvider(lookup)


def said(text: str) -> Message:
    return Message("user", (Text(text),))


async def events(declared: Rules, *messages: Message, **more: Any) -> list[StreamEvent]:
    request = ModelRequest(**{"model": "rules/shop", "messages": messages, "tools": TOOLS} | more)
    async with provider(declared).call(request) as stream:
        return [event async for event in stream]


async def answer(declared: Rules, *messages: Message, **more: Any) -> ModelResponse:
    return fold(await events(declared, *messages, **more))


async def text(declared: Rules, *messages: Message, **more: Any) -> str:
    return (await answer(declared, *messages, **more)).text()


def results(response: ModelResponse, *answers: Any, failed: bool = False) -> tuple[Message, Message]:
    """The assistant's message, and what its tools gave, in order."""
    calls = response.tool_calls()
    assert len(calls) == len(answers)
    given_ = tuple(
        ToolResult(
            call.id, (Text(one if isinstance(one, str) else msgspec.json.encode(one).decode()),), failed
        )
        for call, one in zip(calls, answers, strict=True)
    )
    return Message("assistant", response.content), Message("tool", given_)


def called(response: ModelResponse) -> list[tuple[str, Any]]:
    return [(call.name, msgspec.json.decode(call.arguments)) for call in response.tool_calls()]


async def test_steps_go_out_as_soon_as_what_they_speak_of_is_there():
    talk = [said("Why is SKU-7 out of stock at the  BIG one?")]
    first = await answer(rules(), *talk)
    assert called(first) == [("level", {"key": "SHA/SKU-7", "n": 2}), ("orders", {"sku": "SKU-7"})]
    assert first.stop_reason == "tool_use"
    talk += results(
        first, {"count": 0}, {"items": [{"id": "A", "days": "2026-11-30"}, {"id": "B", "days": "2026-01-01"}]}
    )
    second = await answer(rules(), *talk)
    assert called(second) == [
        ("paper", {"id": "A", "at": "2026-12-01"}),
        ("paper", {"id": "B", "at": "2026-01-02"}),
        ("forecast", {"plain": [1, None]}),
    ]
    talk += results(second, {"says": "held"}, {"says": "late"}, "soon")
    last = await answer(rules(), *talk)
    assert last.text() == "SKU-7 at Shanghai: 0. A=held B=late forecast None"
    assert last.stop_reason == "end_turn"
    assert last.usage == Usage()


async def test_call_ids_are_unique_over_turns_and_the_same_for_the_same_conversation():
    talk = [said("SKU-7 out of stock at Shanghai")]
    first = await answer(rules(), *talk)
    assert first == await answer(rules(), *talk)
    talk += results(first, {"count": 3}, {"items": []})
    done = await answer(rules(), *talk)
    assert done.text() == "SKU-7 at Shanghai: 3. not asked for"
    again = await answer(
        rules(), *talk, Message("assistant", done.content), said("SKU-7 out of stock at Shanghai")
    )
    ids = [call.id for call in (*first.tool_calls(), *again.tool_calls())]
    assert len(set(ids)) == 4


async def test_failures_are_seen_by_the_answer_and_what_depends_on_them_is_left_out():
    talk = [said("SKU-7 out of stock at Shanghai")]
    first = await answer(rules(), *talk)
    calls = first.tool_calls()
    talk += [
        Message("assistant", first.content),
        Message(
            "tool",
            (
                ToolResult(calls[0].id, (Text('{"count": 1}'),)),
                ToolResult(calls[1].id, (Text('{"error": {"message": "orders are away"}}'),), failed=True),
            ),
        ),
    ]
    declared = one_rule(
        "{{ results.orders.failed }} {{ results.orders.error }}; {{ results.papers.skipped }} {{ results.papers.error }}",
        steps=SHOP["rules"][0]["steps"][:3],
        needs=["sku", "dc"],
    )
    assert await text(declared, *talk) == (
        "True orders are away; True it needs orders, and that failed (orders are away)"
    )


async def test_a_tool_that_is_not_offered_is_not_called():
    declared = one_rule("{{ results.level.error }}", steps=[{"tool": "level"}])
    assert await text(declared, said("x"), tools=()) == "this agent has no tool level"
    assert await text(declared, said("x"), tool_choice=ToolChoice("none")) == "this agent has no tool level"


async def test_a_call_without_a_result_counts_as_failed():
    declared = one_rule("{{ results.level.error }}", steps=[{"tool": "level"}])
    first = await answer(declared, said("x"))
    assert await text(declared, said("x"), Message("assistant", first.content)) == "no result came"


async def test_a_question_that_only_names_other_values_asks_the_one_before_again():
    talk = [said("Why is SKU-7 out of stock at Shanghai?"), said("and in Rotterdam South?")]
    assert called(await answer(rules(), *talk))[0][1]["key"] == "RTS/SKU-7"
    talk.append(said("SKU-8?"))
    assert called(await answer(rules(), *talk))[0][1]["key"] == "RTS/SKU-8"
    talk.append(said("sold 30 days"))
    assert await text(rules(), *talk) == "RTS 30 False"
    talk.append(said("thank you"))
    assert await text(rules(), *talk) == "Sorry: thank you"


async def test_a_question_that_lacks_something_is_asked_again_once_it_is_there():
    talk = [said("why out of stock at Shanghai")]
    assert (await answer(rules(), *talk)).text().startswith("Sorry")
    ask = rules(rules=[*SHOP["rules"], {"name": "which", "when": "out of stock", "answer": "Which?"}])
    assert await text(ask, *talk) == "Which?"
    assert called(await answer(ask, *talk, said("SKU-9")))[0][1]["key"] == "SHA/SKU-9"


async def test_captured_words_are_read_by_the_vocabulary():
    assert await text(rules(), said("going to rotterdam")) == "going to RTM"
    assert await text(rules(), said("going to the nice rotterdam south hall")) == "going to RTS"
    assert await text(rules(), said("going to atlantis")) == "going to atlantis"
    assert await text(rules(), said("sold 5 days in Rotterdams")) == "Sorry: sold 5 days in Rotterdams"


async def test_the_stream_comes_in_pieces_that_fold_to_the_answer():
    declared = one_rule("{% for n in range(100) %}word {{ n }}\n{% endfor %}")
    stream = await events(declared, said("x"))
    pieces = [event.text for event in stream if isinstance(event, TextAdded)]
    assert len(pieces) > 10
    assert max(map(len, pieces)) <= 60
    assert "".join(pieces) == fold(stream).text() == "\n".join(f"word {n}" for n in range(100))


async def test_values_keep_their_type_and_json_can_be_written():
    step = {
        "tool": "level",
        "arguments": {
            "whole": "{{ [1, 2.5, none, 'x'] }}",
            "text": "{{ 1 }}{{ 2 }}",
            "kept": "0123",
            "number": "{{ '0123' }}",
            "nested": [{"a": "{{ question | upper }}"}],
            "written": {"$json": '[{% for n in range(3) %}{{ n }}{{ "," if not loop.last }}{% endfor %}]'},
        },
    }
    (call,) = called(await answer(one_rule(steps=[step]), said("hm")))
    assert call[1] == {
        "whole": [1, 2.5, None, "x"],
        "text": "12",
        "kept": "0123",
        "number": "0123",
        "nested": [{"a": "HM"}],
        "written": [0, 1, 2],
    }


async def test_filters_read_as_people_do():
    source = (
        "{{ 1234.565 | number(2) }} {{ -0.5 | number }} {{ '2026-03-01T05:00:00Z' | date }} "
        "{{ '2026-03-01' | days_since('2026-02-27') }} {{ ['a', 'b', 'c'] | listed('or') }}|{{ [] | listed }}"
    )
    assert await text(one_rule(source), said("x")) == "1,234.57 -1 1 Mar 2026 2 a, b or c|"
    step = {"tool": "level", "save_as": "sql"}
    declared = one_rule("{{ results.sql.data | records | table({'a': 'A', 'b': 'B'}) }}", steps=[step])
    first = await answer(declared, said("x"))
    rows = {"columns": ["a", "b"], "rows": [[1234, "x|y"], [2.5, None]]}
    assert await text(declared, said("x"), *results(first, rows)) == (
        "| A | B |\n| ---: | --- |\n| 1,234 | x\\|y |\n| 2.5 |  |"
    )


async def test_what_tools_return_is_never_a_template():
    declared = one_rule("{{ results.level.text }}", steps=[{"tool": "level"}])
    first = await answer(declared, said("x"))
    assert (
        await text(declared, said("{{ 7 * 7 }}"), *results(first, "{{ 7 * 7 }} {% raw %}"))
        == "{{ 7 * 7 }} {% raw %}"
    )


@pytest.mark.parametrize(
    ("source", "said_"),
    [
        ("{{ ''.__class__.__mro__ }}", "unsafe|not there|no attribute"),
        ("{{ question.__class__ }}", "unsafe|not there|no attribute"),
        ("{{ self.__init__.__globals__ }}", "unsafe|not there|no attribute"),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "walk over more than",
        ),
        ("{% for a in 'x' * 9999 %}{% for b in 'x' * 9999 %}{% endfor %}{% endfor %}", "walk over more than"),
        ("{{ range(10 ** 9) | list }}", "Range|big"),
        ("{{ 'x' * 10 ** 9 }}", "repeat"),
        ("{{ [0] * 10 ** 9 }}", "repeat"),
        ("{{ 10 ** (10 ** 9) }}", "exponent"),
        ("{{ '%999999999d' % 1 }}", "format"),
        ("{{ 'x'.ljust(10 ** 9) }}", "unsafe"),
        ("{{ '{:>999999999}'.format(1) }}", "unsafe"),
        ("{{ 'x'['ljust'](10 ** 9) }}", "unsafe"),
        ("{{ nothing_such }}", "not there"),
        ("{{ question.nothing.such }}", "not there"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% set l = [] %}{{ l.append(1) }}", "not safely callable|unsafe"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
    ],
)
async def test_a_template_can_do_no_harm_and_says_where_it_failed(source: str, said_: str):
    started = time.process_time()
    with pytest.raises(BadRequest, match=said_) as caught:
        await answer(one_rule(source), said("x"))
    assert caught.value.field == "rules[0].answer"
    assert "rules shop" in caught.value.message
    assert time.process_time() - started < 5


async def test_an_answer_has_a_size():
    with pytest.raises(TooLarge, match="50000"):
        await answer(one_rule("{% for n in range(9000) %}0123456789{% endfor %}"), said("x"))


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"patterns": {"x": "("}}, "patterns.x"),
        ({"patterns": {"x": r"(?=x)"}}, "patterns.x"),
        ({"rules": [{"name": "a", "when": "*"}]}, "rules[0].when"),
        ({"rules": [{"name": "a", "when": "x", "answer": "{{"}]}, "rules[0].answer"),
        ({"rules": [{"name": "a", "when": "x", "answer": "{{ results.gone }}"}]}, "rules[0].answer"),
        ({"rules": [{"name": "a", "when": "x", "answer": "{{ x | nothing_such }}"}]}, "rules[0].answer"),
        ({"rules": [{"name": "a", "when": "x", "steps": [{"tool": "t", "when": "1 +"}]}]}, "rules[0].steps[0].when"),
        ({"rules": [{"name": "a", "when": "x", "steps": [{"tool": "t", "when": "results.t.ok"}]}]}, "rules[0].steps[0]"),
        ({"rules": [{"name": "a", "when": "x", "steps": [{"tool": "t"}, {"tool": "t"}]}]}, "rules[0].steps[1]"),
        ({"rules": [{"name": "a", "when": "x", "steps": [{"tool": "t", "arguments": {"a": ["{{"]}}]}]},
         "rules[0].steps[0].arguments.a[0]"),
        ({"rules": [{"name": "a", "when": "x"}, {"name": "a", "when": "y"}]}, "rules"),
        ({"otherwise": "{% if %}"}, "otherwise"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_are_refused_with_the_path(changed: dict[str, Any], field: str):
    with pytest.raises(BadRequest) as caught:
        check(rules(**changed))
    assert caught.value.field == field


async def test_names_and_what_rules_cannot_do():
    assert (await answer(rules(), said("x"), model="shop")).model == "rules/shop"
    with pytest.raises(NotFound):
        await answer(rules(), said("x"), model="rules/other")
    with pytest.raises(Unsupported) as caught:
        await answer(rules(), said("x"), output=JsonOutput())
    assert caught.value.field == "output"
    with pytest.raises(Unsupported):
        provider(rules()).forward(b"{}", model="", stream=False, headers={})
    assert await provider(rules()).models() == ()
    assert provider(rules()).is_language_model is False


async def test_a_long_text_takes_no_long_time():
    started = time.process_time()
    await answer(rules(), said("out of stock " * 200_000 + "SKU-1"))
    assert time.process_time() - started < 1


@given(
    st.lists(
        st.text(max_size=40) | st.sampled_from(["out of stock", "SKU-7 Shanghai", "to rotterdam"]), max_size=5
    )
)
def test_whatever_is_said_there_is_one_answer(texts: list[str]):
    talk = [said(one) for one in texts]
    offered = frozenset(tool.name for tool in TOOLS)
    assert PLAN.next(talk, offered) == PLAN.next(talk, offered)


def test_calls_of_others_in_the_conversation_are_no_matter():
    talk = [
        said("SKU-7 out of stock at Shanghai"),
        Message("assistant", (ToolCall("call_1", "level", "{}"),)),
        Message("tool", (ToolResult("call_1", (Text("{}"),)),)),
    ]
    assert isinstance(PLAN.next(talk, frozenset({"level", "orders"})), Calls)
