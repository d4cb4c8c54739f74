"""The `rules` provider: what is to be done next in a turn, from the conversation alone. Pure.

Nothing is kept between calls. A call's id says which step of which turn it belongs to (`rules_<turn>_<step>_<item>`), so the
results in the conversation tell what is done. Steps whose templates speak of no open result go out together.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest, TooLarge
from freehold.core.messages import Message, ToolCall, ToolResult, text_of
from freehold.core.resources import Rule, Rules, RuleStep
from freehold.providers._rules_match import Matcher
from freehold.providers._rules_templates import Expression, Missing, Templates, TextTemplate, Value

STEPS_MAX: Final = 40
ITEMS_MAX: Final = 25
"""Calls that one step's `for_each` may make."""

QUOTED_CHARS_MAX: Final = 1_000
"""Of what the user said last, as templates see it in `question`."""

ID_PREFIX: Final = "rules"


class StepResult(Struct, frozen=True, kw_only=True):
    """What templates see of a step. `data` is the result parsed, where it is JSON; `error` says why there is none."""

    data: Any = None
    text: str = ""
    failed: bool = False
    skipped: bool = False
    error: str = ""
    item: Any = None

    @property
    def ok(self) -> bool:
        return not (self.failed or self.skipped)


Results: TypeAlias = dict[str, StepResult | list[StepResult]]


class Calls(Struct, frozen=True):
    calls: tuple[ToolCall, ...]


class Answer(Struct, frozen=True):
    text: str


class _Step(Struct, frozen=True):
    name: str
    tool: str
    arguments: Value
    when: Expression | None
    for_each: Expression | None
    waits_for: frozenset[str]


class _Compiled(Struct, frozen=True):
    steps: tuple[_Step, ...]
    answer: TextTemplate


class Plan:
    """One Rules. What is wrong in it raises BadRequest with the path: in its patterns at once, in a rule when it is asked."""

    def __init__(self, rules: Rules) -> None:
        self._templates = Templates(rules.vocabulary)
        self._matcher = Matcher(rules)
        self._index = {rule.name: index for index, rule in enumerate(rules.rules)}
        if len(self._index) < len(rules.rules):
            raise BadRequest("two rules have the same name", field="rules")
        self._compiled: dict[str, _Compiled] = {}
        self._otherwise = self._templates.text(rules.otherwise, "otherwise")
        self._rules = rules

    def compile_all(self) -> None:
        """For checking; takes some 300 ms for a dozen rules with long answers."""
        for rule in self._rules.rules:
            self._rule(rule)

    def next(self, messages: Sequence[Message], offered: frozenset[str]) -> Calls | Answer:
        """`offered` are the names of the tools that the caller gave."""
        texts = [text_of(one.content) for one in messages if one.role == "user"]
        question = texts[-1][:QUOTED_CHARS_MAX] if texts else ""
        asked = self._matcher.match(texts)
        if asked is None:
            return Answer(self._otherwise.render({"question": question}))
        compiled = self._rule(asked.rule)
        turn = _Turn(len(texts), _results_by_call(messages), offered)
        variables: dict[str, Any] = {**asked.variables, "question": question}
        calls = turn.walk(compiled.steps, variables)
        if calls:
            return Calls(tuple(calls))
        return Answer(compiled.answer.render(variables | {"results": turn.results}).strip())

    def _rule(self, rule: Rule) -> _Compiled:
        compiled = self._compiled.get(rule.name)
        if compiled is None:
            field = f"rules[{self._index[rule.name]}]"
            compiled = self._compiled[rule.name] = _compile(rule, self._templates, field)
        return compiled


def _compile(rule: Rule, templates: Templates, field: str) -> _Compiled:
    if len(rule.steps) > STEPS_MAX:
        raise BadRequest(f"expected at most {STEPS_MAX} steps, got {len(rule.steps)}", field=f"{field}.steps")
    steps: list[_Step] = []
    known: set[str] = set()
    for index, step in enumerate(rule.steps):
        compiled = _compile_step(step, templates, f"{field}.steps[{index}]")
        _refuse_unknown(compiled.waits_for, known, f"{field}.steps[{index}]")
        if compiled.name in known:
            raise BadRequest(
                f"a second step with the result {compiled.name!r}; set save_as",
                field=f"{field}.steps[{index}]",
            )
        known.add(compiled.name)
        steps.append(compiled)
    answer = templates.text(rule.answer, f"{field}.answer")
    _refuse_unknown(answer.results, known, answer.field)
    return _Compiled(tuple(steps), answer)


def _compile_step(step: RuleStep, templates: Templates, field: str) -> _Step:
    arguments = templates.value(step.arguments, f"{field}.arguments")
    when = templates.expression(step.when, f"{field}.when") if step.when is not None else None
    for_each = templates.expression(step.for_each, f"{field}.for_each") if step.for_each is not None else None
    waits_for = arguments.results.union(*(one.results for one in (when, for_each) if one is not None))
    return _Step(step.save_as or step.tool, step.tool, arguments, when, for_each, waits_for)


def _refuse_unknown(named: frozenset[str], known: set[str], field: str) -> None:
    if unknown := named - known:
        raise BadRequest(
            f"speaks of results.{min(unknown)}, but no earlier step has that name; "
            f"there are: {', '.join(sorted(known)) or 'none'}",
            field=field,
        )


class _Turn:
    def __init__(self, number: int, done: Mapping[str, ToolResult], offered: frozenset[str]) -> None:
        self.results: Results = {}
        self._number = number
        self._done = done
        self._offered = offered

    def walk(self, steps: Sequence[_Step], variables: Mapping[str, Any]) -> list[ToolCall]:
        """Calls to make now; none when all is done. Steps speak of earlier ones only, so one pass is enough."""
        calls: list[ToolCall] = []
        for index, step in enumerate(steps):
            if not all(name in self.results for name in step.waits_for):
                continue
            try:
                found = self._step(index, step, {**variables, "results": self.results})
            except BadRequest as error:
                without = self._without(step)
                if without is None and not isinstance(error, Missing):
                    raise
                found = StepResult(skipped=True, error=without or error.message)
            if isinstance(found, _Open):
                calls += found.calls
            else:
                self.results[step.name] = found
        return calls

    def _without(self, step: _Step) -> str | None:
        """Which result it waited for in vain."""
        for name in sorted(step.waits_for):
            result = self.results[name]
            if isinstance(result, StepResult) and not result.ok:
                return f"it needs {name}, and that {'failed' if result.failed else 'was left out'} ({result.error})"
        return None

    def _step(
        self, index: int, step: _Step, variables: dict[str, Any]
    ) -> "StepResult | list[StepResult] | _Open":
        if step.when is not None and not _true(step.when.render(variables)):
            return StepResult(skipped=True, error="not asked for")
        if step.tool not in self._offered:
            return StepResult(failed=True, error=f"this agent has no tool {step.tool}")
        items = self._items(step, variables)
        results: list[StepResult] = []
        calls: list[ToolCall] = []
        for number, item in enumerate(items):
            call_id = f"{ID_PREFIX}_{self._number}_{index}_{number}"
            if (result := self._done.get(call_id)) is not None:
                results.append(_read(result, item))
                continue
            arguments = step.arguments.render(variables | {"item": item})
            calls.append(ToolCall(call_id, step.tool, msgspec.json.encode(arguments).decode()))
        if calls:
            return _Open(calls)
        return results if step.for_each is not None else results[0]

    def _items(self, step: _Step, variables: dict[str, Any]) -> list[Any]:
        if step.for_each is None:
            return [None]
        items = step.for_each.render(variables)
        if not isinstance(items, (list, tuple)):
            raise BadRequest(f"expected a list, got {type(items).__name__}", field=step.for_each.field)
        if len(items) > ITEMS_MAX:
            raise TooLarge(
                f"a step may be done for {ITEMS_MAX} items at most, got {len(items)}; cut the list: [:{ITEMS_MAX}]",
                field=step.for_each.field,
            )
        return list(items)


class _Open(Struct, frozen=True):
    calls: list[ToolCall]


def _true(value: Any) -> bool:
    """Text that says no is no."""
    return (
        str(value).strip().lower() not in {"", "false", "none", "0"}
        if isinstance(value, str)
        else bool(value)
    )


def _results_by_call(messages: Sequence[Message]) -> dict[str, ToolResult]:
    """Those after the last thing that the user said; a call that never got a result counts as failed."""
    found: dict[str, ToolResult] = {}
    for message in messages:
        if message.role == "user":
            found = {}
        for part in message.content:
            match part:
                case ToolCall():
                    found.setdefault(part.id, ToolResult(part.id, (), failed=True))
                case ToolResult():
                    found[part.call_id] = part
                case _:
                    continue
    return found


def _read(result: ToolResult, item: Any) -> StepResult:
    text = text_of(result.content)
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        data = None
    error = ""
    if result.failed:
        said = data.get("error") if isinstance(data, dict) else None
        if isinstance(said, dict):
            said = said.get("message")
        error = str(said or text or "no result came")
    return StepResult(data=data, text=text, failed=result.failed, error=error, item=item)
