"""The `rules` provider: which rule a question asks for, and with which variables. Pure.

Only RE2 is used, so no pattern can take more than linear time. Matching reads every turn of the conversation anew, oldest
first: what was said earlier fills in what a rule needs, and nothing else is remembered.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import re2
from msgspec import Struct

from freehold.core.errors import BadRequest
from freehold.core.resources import Rule, Rules

QUESTION_CHARS_MAX: Final = 20_000
"""Of each turn; what stands after it is not looked at."""

PATTERN_MEMORY_BYTES: Final = 8_000_000

_NOTHING: Final[Mapping[str, str]] = {}


class Asked(Struct, frozen=True):
    rule: Rule
    variables: dict[str, str]


class Matcher:
    """Compiled from one Rules. Raises BadRequest naming the pattern that RE2 cannot compile."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules.rules
        self._whens = [_compiled(rule.when, f"rules[{index}].when") for index, rule in enumerate(rules.rules)]
        self._patterns = {name: _compiled(one, f"patterns.{name}") for name, one in rules.patterns.items()}
        self._values = {
            name: {_folded(phrase): value for phrase, value in words.items()}
            for name, words in rules.vocabulary.items()
        }
        self._phrases = {
            name: _phrase_pattern(words, f"vocabulary.{name}")
            for name, words in self._values.items()
            if words
        }

    def match(self, texts: Sequence[str]) -> Asked | None:
        """`texts` are all that the user said, oldest first; what the last one asks.

        One that fits no rule but names values asks the question before it again, with these values.
        """
        known: dict[str, str] = {}
        question, said = "", dict[str, str]()
        asked: Asked | None = None
        for text in texts:
            text = text[:QUESTION_CHARS_MAX]
            now = self._said(text)
            asked = self._first(text, now, known)
            if asked is not None:
                question, said = text, now
            elif now and question:
                said = said | now
                asked = self._first(question, said, known, over=now)
            known |= now
            if asked is not None:
                known |= {name: asked.variables[name] for name in asked.rule.needs}
        return asked

    def _first(
        self,
        text: str,
        said: Mapping[str, str],
        known: Mapping[str, str],
        *,
        over: Mapping[str, str] = _NOTHING,
    ) -> Asked | None:
        """`over` stands above what the rule's own groups find in the text."""
        for rule, when in zip(self._rules, self._whens, strict=True):
            found = when.search(text)
            if found is None:
                continue
            remembered = {name: known[name] for name in rule.needs if name in known}
            groups = {
                name: self._value(name, one) for name, one in found.groupdict().items() if one is not None
            }
            variables = {**rule.defaults, **remembered, **said, **groups, **over}
            if all(name in variables for name in rule.needs):
                return Asked(rule, variables)
        return None

    def _said(self, text: str) -> dict[str, str]:
        """The first mention of each variable."""
        said: dict[str, str] = {}
        for name, pattern in self._patterns.items():
            if found := pattern.search(text):
                groups = {key: one for key, one in found.groupdict().items() if one is not None}
                said |= groups or {name: found.group(0)}
        for name, phrases in self._phrases.items():
            if found := phrases.search(text):
                said[name] = self._values[name][_folded(found.group(1))]
        return said

    def _value(self, name: str, text: str) -> str:
        """A captured text as the vocabulary has it: whole, or by a phrase within it."""
        text = text.strip()
        values = self._values.get(name)
        if not values:
            return text
        if (whole := values.get(_folded(text))) is not None:
            return whole
        found = self._phrases[name].search(text)
        return values[_folded(found.group(1))] if found else text


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _phrase_pattern(words: Mapping[str, str], field: str) -> Any:
    """Longer phrases first, whole words only, any space between words."""
    phrases = sorted(words, key=lambda phrase: (-len(phrase), phrase))
    choices = "|".join(r"\s+".join(re2.escape(word) for word in phrase.split()) for phrase in phrases)
    return _compiled(rf"(?:^|[^\pL\pN])({choices})(?:[^\pL\pN]|$)", field)


def _compiled(pattern: str, field: str) -> Any:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = PATTERN_MEMORY_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else "?"
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise BadRequest(f"not a regular expression that RE2 knows: {text}", field=field) from error
