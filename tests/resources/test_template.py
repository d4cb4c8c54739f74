"""Templates as text: what is taken, and what is told of each thing that isn't."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import BadRequest, TooLarge
from freehold.core.resources import KINDS, Agent, Limits, Rules, Tool
from freehold.resources.template import TEMPLATE_BYTES_MAX, read_template

AGENT = "kind: agent\nname: clerk\n"
KNOWN = ", ".join(KINDS)


def refused(text: str, **variables: str) -> list[str]:
    with pytest.raises(BadRequest) as caught:
        read_template(text, source="shop.yaml", variables=variables)
    return caught.value.message.splitlines()


def only(text: str, **variables: str) -> Agent | Tool | Rules:
    (declared,) = read_template(text, variables=variables)
    assert isinstance(declared.resource, Agent | Tool | Rules)
    return declared.resource


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: agnet\nname: a\n",
         f"shop.yaml:1: kind: expected one of {KNOWN}; got 'agnet' (did you mean 'agent'?)"),
        ("name: a\n", f"shop.yaml:1: kind: expected one of {KNOWN}; got nothing"),
        ("kind: [tool]\nname: a\n", f"shop.yaml:1: kind: expected one of {KNOWN}; got ['tool']"),
        (AGENT + "modle: x\n",
         ("shop.yaml:3: agent clerk: modle: unknown field 'modle' (did you mean 'model'?); known: "
         + ", ".join(Agent.__struct_fields__))),
        (AGENT + "limits:\n  steps_max: 3\n  stepsmax: 4\n",
         ("shop.yaml:5: agent clerk: limits.stepsmax: unknown field 'stepsmax' (did you mean 'steps_max'?); known: "
         + ", ".join(Limits.__struct_fields__))),
        (AGENT + "tools: [a, b,\n  7]\n", "shop.yaml:4: agent clerk: tools[2]: expected 'str', got 'int'"),
        ("kind: agent\nmodel: auto\n", "shop.yaml:1: agent: name: required, but missing"),
        ("kind: agent\nname: Über\n",
         ("shop.yaml:2: agent Über: name: expected 1-63 of a-z, 0-9, '-' and '_', beginning and ending with a letter or digit, "
         "got 'Über'")),
        ("kind: agent\nname: no\nname: yes\n", "shop.yaml:3: the key 'name' stands here a second time"),
        ("just text\n", "shop.yaml:1: expected a resource with `kind` and `name`, got 'just text'"),
        ("- []\n", "shop.yaml:1: expected a resource with `kind` and `name`, got a list"),
        (AGENT + "<<: {model: x}\n", "shop.yaml:3: keys must be plain strings (no merge keys)"),
        (AGENT + "? [a]\n: b\n", "shop.yaml:3: keys must be plain strings (no merge keys)"),
        (AGENT + "model: !!python/object:os.system x\n",
         "shop.yaml:3: the tag 'tag:yaml.org,2002:python/object:os.system' is not taken; leave it out"),
        (AGENT + "tokens_max: !!int '5'\n", "shop.yaml:3: the tag 'tag:yaml.org,2002:int' is not taken; leave it out"),
        (AGENT + f"tokens_max: {9**50}\n", f"shop.yaml:3: {str(9**50)[:40]} is over 64 bits: write it in quotes, as text"),
        (AGENT + "temperature: 1e999\n", "shop.yaml:3: 1e999 is too large a number: write it in quotes, as text"),
        (AGENT + "model: ${WHICH}\n", "shop.yaml:3: the variable WHICH is used but not given: add --set WHICH=VALUE"),
        (AGENT + "model: a ${} b\n", "shop.yaml:3: expected ${NAME}; write $${ for a plain ${"),
        (AGENT + "---\n" + AGENT, "shop.yaml:4: agent 'clerk' is declared a second time (first in line 1)"),
        (AGENT + "tools: &again [*again]\n", "shop.yaml:3: an alias stands inside of what it names"),
        ("", "shop.yaml: there is no resource in it; expected documents with `kind` and `name`"),
        ("# nothing\n---\n---\n", "shop.yaml: there is no resource in it; expected documents with `kind` and `name`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(text: str, said: str) -> None:
    assert refused(text) == [said]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (AGENT + "tools: [a\n", 4, "not YAML"),
        (AGENT + "tools:\n\t- a\n", 4, "cannot start any token"),
        (AGENT + "model: *nobody\n", 3, "undefined alias"),
        (AGENT + "model: 'a\n", 4, "not YAML"),
        (AGENT + "model: a\x01b\n", 3, "not YAML"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_line(text: str, line: int, words: str) -> None:
    (said,) = refused(text)
    assert said.startswith(f"shop.yaml:{line}: ")
    assert words in said


def test_every_problem_is_told_at_once() -> None:
    text = "kind: agent\nname: A\n---\nkind: nothing\n---\nkind: tool\nname: t\n---\n" + AGENT
    assert [said.split(": ")[0] for said in refused(text)] == ["shop.yaml:2", "shop.yaml:4", "shop.yaml:6"]


def test_of_very_many_problems_the_first_are_told_and_the_rest_counted() -> None:
    said = refused("---\n".join(["kind: nothing\n"] * 30))
    assert len(said) == 21
    assert said[-1] == "... and 10 more"


@pytest.mark.slow
def test_aliases_cannot_multiply_a_template_past_its_bounds() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (said,) = refused("\n".join(lines))
    assert "a template may have 200000 values at most" in said


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_nesting_that_is_too_deep_is_refused(opening: str) -> None:
    (said,) = refused(AGENT + "tools: " + opening * 100_000)
    assert said == "shop.yaml:3: nested deeper than 100, which is more than is taken"


def test_too_large_a_template_is_refused() -> None:
    with pytest.raises(TooLarge, match="2000000 bytes at most"):
        read_template("#" * (TEMPLATE_BYTES_MAX + 1))
    with pytest.raises(TooLarge, match="1000 documents at most"):
        read_template("---\n".join([AGENT.replace("clerk", f"c{n}") for n in range(1001)]))


@pytest.mark.parametrize(
    "word", ["NO", "no", "on", "yes", "2024-01-31", "12:30", "0o8", "1_000", "1.2.3", "=", ".inf"]
)
def test_words_that_older_yaml_turned_into_something_else_stay_words(word: str) -> None:
    assert only(AGENT + f"metadata: {{country: {word}}}\n").metadata == {"country": word}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("-7", -7), ("0x1F", 31), ("0o17", 15), ("0123", 123), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5),
     ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("'5'", "5"), ("|\n    5\n", "5\n")],
)  # fmt: skip
def test_numbers_truths_and_nothing_are_read_as_yaml_1_2_has_them(text: str, value: object) -> None:
    tool = only(f"kind: tool\nname: t\ntype: kv\nconfig:\n  it: {text}\n")
    assert isinstance(tool, Tool)
    assert tool.config == {"it": value}
    assert type(tool.config["it"]) is type(value)


def test_variables_are_filled_in_and_can_be_escaped() -> None:
    agent = only(
        AGENT + "instructions: |\n  You serve ${WHO} of ${WHERE}, not $${WHO}. $5\n", WHO="Ann", WHERE="a: b"
    )
    assert agent.instructions == "You serve Ann of a: b, not ${WHO}. $5\n"  # type: ignore[union-attr]


def test_what_a_variable_holds_is_text_and_never_yaml() -> None:
    assert only(AGENT + "model: ${M}\n", M="x\nkind: tool").model == "x\nkind: tool"  # type: ignore[union-attr]


def test_a_json_array_is_a_template_too() -> None:
    resources = [{"kind": "agent", "name": "a", "tools": ["t"]}, {"kind": "tool", "name": "t", "type": "kv"}]
    declared = read_template(json.dumps(resources, indent=1))
    assert [(one.resource.name, one.line) for one in declared] == [("t", 9), ("a", 2)]


def test_what_is_referred_to_comes_first() -> None:
    text = AGENT + "---\nkind: tool\nname: t\ntype: kv\n---\nkind: rules\nname: r\nrules: []\n"
    assert [one.resource.name for one in read_template(text)] == ["r", "t", "clerk"]


def test_a_path_has_its_line_or_that_of_what_is_around_it() -> None:
    (declared,) = read_template(
        "kind: tool\nname: t\ntype: kv\nconfig:\n  table: a\n  more:\n    - x\n    - y\n"
    )
    lines = {
        "config.more[1]": 8,
        "config.more[1].far.away": 8,
        "config.table": 5,
        "config.nobody": 4,
        "other": 1,
        "": 1,
    }
    assert {path: declared.line_of(path) for path in lines} == lines
    assert declared.line_of(None) == 1


@pytest.mark.slow
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_template(text)
    except (BadRequest, TooLarge) as error:
        assert error.message.startswith("template")  # noqa: PT017 - it may also be read


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=50), max_size=5))
def test_any_text_survives_as_json(metadata: dict[str, str]) -> None:
    escaped = {key: value.replace("${", "$${") for key, value in metadata.items()}
    text = json.dumps([{"kind": "agent", "name": "a", "metadata": escaped}])
    assert only(text).metadata == metadata  # type: ignore[union-attr]
