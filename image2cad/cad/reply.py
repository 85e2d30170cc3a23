"""The program in a model's reply."""

from __future__ import annotations

import ast
import keyword
import re
import textwrap

THOUGHT = re.compile(r"<think>(?:(?!<think>).)*?</think>", re.DOTALL)
FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n`]*\n(?P<code>.*?)(?:^[ \t]*\1|\Z)", re.M | re.S)

# `import x`, `from x import y`, `name = `, `call(`, `def f`, a decorator: how a program begins
FIRST_CODE = re.compile(
    r"(import|from)\s+[\w.]+(\s+(import|as)\b.*)?$|[A-Za-z_]\w*\s*=[^=]|[\w.]+\(|(def|class)\s\w|@\w"
)

# three words in a row that are no statement
PROSE = re.compile(r"\s*[-*>#]*\s*(?P<word>[A-Za-z][\w'’,*`-]*)( [\w'’,(*`:.-]+){2,}")


def extract_code(reply: str) -> str:
    """The program in a model's reply: plain, fenced or wrapped in sentences.

    Prose is taken off; code is never repaired, so that a reply that broke off still fails. Without
    anything that looks like code the stripped reply comes back, to fail where it is run.
    """
    text = THOUGHT.sub("", reply.replace("\r\n", "\n"))
    if text.lstrip().startswith("USER:"):
        text = text.partition("ASSISTANT:")[2]
    text = text.removeprefix("<s>").partition("</s>")[0]
    blocks = [match["code"] for match in FENCE.finditer(text)]
    if blocks:
        # a chatty reply also fences its install command and its output
        return _clean(max(blocks, key=lambda block: (_mentions_cadquery(block), len(block))))
    text = _clean(text)
    return text if _parses(text) else _clean(_without_prose(text.splitlines()))


def _clean(text: str) -> str:
    return textwrap.dedent(text).strip()


def _mentions_cadquery(block: str) -> bool:
    return bool(re.search(r"\bcq\.|^\s*(import|from) cadquery", block, re.MULTILINE))


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _without_prose(lines: list[str]) -> str:
    """Sentences before the first line of code and after the last one taken off."""
    first = next((i for i, line in enumerate(lines) if FIRST_CODE.match(line.strip())), None)
    if first is None:
        return "\n".join(lines)
    lines = lines[first:]
    while not _parses("\n".join(lines)):
        last = max(i for i, line in enumerate(lines) if line.strip())
        if last == 0 or not _is_prose(lines[last]):
            break  # broken code, not a sentence: it has to fail
        lines = lines[:last]
    return "\n".join(lines)


def _is_prose(line: str) -> bool:
    match = PROSE.match(line)
    return match is not None and not keyword.iskeyword(match["word"])
