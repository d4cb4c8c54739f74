"""The examples of a page, as one would follow them: what is exported, and the programs after it."""

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

BLOCK = re.compile(r"^```(sh|python|javascript)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXPORT = re.compile(r"^export (\w+)=(\S+)$", re.MULTILINE)
HEADING = re.compile(r"^## (.*)$", re.MULTILINE)


class Example(Struct, frozen=True):
    title: str
    language: str
    exported: dict[str, str]
    code: str


def examples(page: Path) -> Iterator[Example]:
    text = page.read_text()
    exported: dict[str, str] = {}
    for number, block in enumerate(BLOCK.finditer(text)):
        language, code = block.groups()
        if language == "sh":
            exported = dict(EXPORT.findall(code))
            continue
        title = HEADING.findall(text, 0, block.start())[-1]
        yield Example(f"{title} {number}", language, exported, code)
