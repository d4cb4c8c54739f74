"""Size caps: a file past one screenful of screens wants to be two rooms. Exits 1 and names what is over."""

import ast
import sys
from pathlib import Path

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 80
ROOT = Path(__file__).resolve().parent.parent


def too_long(path: Path) -> list[str]:
    text = path.read_text()
    name = path.relative_to(ROOT)
    found = []
    if (lines := text.count("\n")) > FILE_LINES_MAX:
        found.append(f"{name}: {lines} lines (at most {FILE_LINES_MAX})")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size > FUNCTION_LINES_MAX:
                found.append(
                    f"{name}:{node.lineno}: {node.name} has {size} lines (at most {FUNCTION_LINES_MAX})"
                )
    return found


def main() -> int:
    files = sorted(
        path for folder in ("src", "examples", "bench", "scripts") for path in (ROOT / folder).rglob("*.py")
    )
    found = [line for path in files for line in too_long(path)]
    print(
        "\n".join(found)
        or f"{len(files)} files within {FILE_LINES_MAX} lines, functions within {FUNCTION_LINES_MAX}"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
