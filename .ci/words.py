"""Refuse sentences that hang in the air, and lines of the long documents that are too long.

A docstring, a help text or a block of comments opens with a noun phrase or a verb ("Age of the
last update", "Parse ..."), not with a loose clause ("What we know", "How old it is", "Of a pod").
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("agent", "bpf", "control", "ztunnel", "tests", ".ci")
GENERATED = re.compile(r"_pb2\.pyi?$|/_compiled/")
DOCUMENTS = (
    "ARCHITECTURE.md",
    "DECISIONS.md",
    "agent/lab/README.md",
    "bpf/README.md",
    "control/wire/CONTRACT.md",
    "tests/bench/RESULTS.md",
)
COLUMNS_MAX = 100

_CLAUSE = r"What(ever)?|Who(ever)?|Whose|Whom|Of|How|Whether|Which(ever)?"
SENTENCE = re.compile(rf"\s*({_CLAUSE}|That|Where|Why)\b")
# In a comment "Where a kernel lacks it, ..." and "That is ..." are good English.
COMMENT = re.compile(rf"\s*({_CLAUSE})\b")
NOTE = re.compile(r"\s*[oO]f\b")  # behind code: "what it holds" is clear there, "of it" is not
# Cheap: only a file that has one of these is taken apart for its comments.
SUSPECT = re.compile(rf"#\s*({_CLAUSE}|of)\b")
C_BLOCK = re.compile(rf"/\*+[\s*]*({_CLAUSE})\b")

Problem = tuple[int, str]  # line, what is wrong there


def docstrings(tree: ast.Module) -> Iterator[Problem]:
    """Docstrings and `help=` texts of a module that open with a loose clause."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            text = first.value if isinstance(first, ast.Expr) else None
            kind = "docstring"
        elif isinstance(node, ast.keyword) and node.arg == "help":
            text, kind = node.value, "help text"
        else:
            continue
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            found = SENTENCE.match(text.value)
            if found:
                yield text.lineno, f'{kind} opens with "{found[1]}"'


def comments(text: str) -> Iterator[Problem]:
    """Comments that open so: whole blocks, and notes behind code."""
    if not SUSPECT.search(text):
        return
    block_end = -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, column = token.start
        alone = not token.line[:column].strip()
        found = (COMMENT if alone else NOTE).match(token.string[1:])
        if found and not (alone and line == block_end + 1):
            yield line, f'comment opens with "{found[0].strip()}"'
        if alone:
            block_end = line


def c_comments(text: str) -> Iterator[Problem]:
    for found in C_BLOCK.finditer(text):
        yield text.count("\n", 0, found.start()) + 1, f'comment opens with "{found[1]}"'


def long_lines(text: str) -> Iterator[Problem]:
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > COLUMNS_MAX:
            yield number, f"{len(line)} columns, at most {COLUMNS_MAX}"


def problems_of(path: Path) -> list[Problem]:
    text = path.read_text()
    match path.suffix:
        case ".py":
            return sorted([*docstrings(ast.parse(text)), *comments(text)])
        case ".c" | ".h":
            return list(c_comments(text))
        case _:
            return list(long_lines(text))


def paths(root: Path) -> Iterator[Path]:
    for place in PLACES:
        for suffix in ("py", "c", "h"):
            yield from (root / place).rglob(f"*.{suffix}")
    yield from (root / name for name in DOCUMENTS if (root / name).exists())


def main(root: Path = ROOT) -> int:
    wrong = 0
    for path in sorted(paths(root)):
        name = path.relative_to(root).as_posix()
        if GENERATED.search(name):
            continue
        for line, problem in problems_of(path):
            wrong += 1
            sys.stdout.write(f"{name}:{line}: {problem}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
