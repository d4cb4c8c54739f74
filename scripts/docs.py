"""Checks the documents: every relative link and #anchor leads somewhere, every page can be reached from the README."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)|!\[[^\]\n]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.*)$", re.MULTILINE)


def pages() -> list[Path]:
    top = list(ROOT.glob("*.md"))
    return sorted([
        *top,
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *(ROOT / "bench").rglob("*.md"),
    ])


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text())


def anchors(path: Path) -> set[str]:
    titles = (re.sub(r"[`*_]", "", title).strip().lower() for title in HEADING.findall(prose(path)))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def links(path: Path) -> list[tuple[str, Path, str]]:
    found = []
    for first, second in LINK.findall(prose(path)):
        target = first or second
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found.append((target, (path.parent / file).resolve() if file else path, anchor))
    return found


def main() -> int:
    wrong: list[str] = []
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        waiting += [target for _, target, _ in links(page) if target.suffix == ".md" and target.exists()]
    for page in pages():
        name = page.relative_to(ROOT)
        for text, target, anchor in links(page):
            if not target.exists():
                wrong.append(f"{name}: {text} leads nowhere")
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                wrong.append(f"{name}: {text} has no such heading")
        if page not in reached:
            wrong.append(f"{name}: no page reachable from the README links to it")
    print("\n".join(wrong) or f"{len(pages())} pages, every link leads somewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
