"""The program in a model's reply.

    extract_code("Sure!\\n```python\\nimport cadquery as cq\\n...\\n```")  # "import cadquery ..."

A reply is unwrapped from the outside in: whose turn it is, thoughts and answers, JSON, fences,
sentences. Nothing is run to decide. Which of several blocks is the program: snippets.py.
"""

from __future__ import annotations

import ast
import html
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from image2cad.cad.snippets import (
    FIRST_CODE,
    LANGUAGES,
    MOST_BLOCKS,
    builds,
    code_runs,
    is_prose,
    joined,
    parsed,
    without_remarks,
)

MOST_WRAPPINGS = 4  # JSON in a fence in an answer, and one more
MOST_REMARKS = 300  # lines of prose that are taken off one by one
MOST_CLOSINGS = 12  # fences that are tried as the end of a block

THOUGHTS = "think|thinking|thought|thoughts|reasoning|reason|analysis|scratchpad|reflection|plan"
ANSWERS = "answer|final_answer|final|solution|response|output|result|code|python|cadquery|pre"
ANSWERS += "|tool_call"
THOUGHT = re.compile(rf"<({THOUGHTS})\b[^<>\n]*>(?:(?!<\1\b).)*?</\1>", re.DOTALL | re.IGNORECASE)
END_OF_THOUGHT = re.compile(rf"</(?:{THOUGHTS})>", re.IGNORECASE)
CHANNEL = re.compile(
    r"<\|channel\|>\s*(?:analysis|commentary|thought).*?(?=<\|channel\|>\s*final|\Z)", re.DOTALL
)
ANSWER = re.compile(rf"<({ANSWERS})\b[^<>\n]*>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
ENTITY = re.compile(r"&(?:lt|gt|amp|quot|#\d+);")
TAG = re.compile(
    rf"</?(?:{THOUGHTS}|{ANSWERS})\b[^<>\n]*>|<!\[CDATA\[|\]\]>"
    r"|\[/?(?:PYTHON|CODE|ANSWER|THINK)\]|\{code(?::\w+)?\}",
    re.IGNORECASE,
)

# Marks of turns: `<|im_end|>`, `<|eot_id|>`, `</s>`, `<end_of_turn>`, `[/INST]`, ...
TOKEN = re.compile(
    r"(<\|[^<>|\n]{1,40}\|>|<｜[^<>｜\n]{1,40}｜>|</?s>|</?(?:bos|eos|pad|unk)>"
    r"|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>)"
)
ROLE = re.compile(
    r"(^[ \t]*(?:#{2,}[ \t]*)?(?:USER|User|Human|HUMAN|SYSTEM|System|ASSISTANT|Assistant)[ \t]*:"
    r"|^[ \t]*#{2,}[ \t]*(?:Instruction|Input|Response|Output)[ \t]*:|\bASSISTANT:)",
    re.MULTILINE,
)
ASKS, ANSWERS_ROLE = ("user", "human", "system", "instruction", "input"), (
    "assistant", "model", "response", "output",
)  # fmt: skip

MARK = r"(?P<mark>`{3,}|~{3,}|'''(?=[ \t]*(?:python|py)?[ \t]*$))"
FENCE = re.compile(rf"^(?P<before>.*?){MARK}[ \t]*(?P<info>[^`\n]*)$")
LANGUAGE = re.compile(r"\{?\.?[\w+#.-]*\}?[ \t]*")
ONE_LINE = re.compile(r"(`{3,})(?!`)[ \t]*(?:(?:python3?|py|cadquery)[ \t]+)?([^`\n].*?)\1")
SPAN = re.compile(r"(?<!`)`(?!`)([^`]+)`(?!`)")
PROMPT = re.compile(r"[ \t]*(?:>>>|\.\.\.|In \[\d+\]:)(?: |$)", re.MULTILINE)


class CutOff(str):
    """The program in a reply that was ended by its most tokens, not by the model."""


def extract_code(reply: str) -> str:
    """The program in a model's reply: plain, fenced, in JSON, in marks of models or in sentences.

    Prose is taken off; code is never repaired, so that a reply that broke off still fails. Of
    several blocks the last whole one counts, with earlier ones whose names it uses. Without
    anything that looks like code the stripped reply comes back, to fail where it is run.
    """
    text = reply.replace("\r\n", "\n").replace("\r", "\n").strip("\ufeff\u200b\u2060 ")
    whole = _clean(text)
    if _is_program(whole):
        return without_remarks(whole)
    best = ""
    for piece in _pieces(text):
        found = _program(piece)
        if builds(found):
            return found
        best = best or found
    return best


def _clean(text: str) -> str:
    return textwrap.dedent(text).strip()


def _is_program(text: str) -> bool:
    tree = parsed(text)  # of Jira's marks some parse
    return tree is not None and not text.startswith("{code") and _data(text, tree) is None


# ---- turns, thoughts and answers ----


def _pieces(text: str) -> Iterator[str]:
    """Where the program may be, the likeliest place first."""
    text = re.sub(r"<\|begin_of_(box|solution)\|>", "<answer>", text)
    text = re.sub(r"<\|end_of_(box|solution)\|>", "</answer>", text)
    text = re.sub(r"<\|begin_of_thought\|>|◁think▷|\[THINK\]|<seed:think>", "<think>", text)
    text = re.sub(r"<\|end_of_thought\|>|◁/think▷|\[/THINK\]|</seed:think>", "</think>", text)
    text = CHANNEL.sub("", text)
    count = 1
    while count:
        text, count = THOUGHT.subn("", text)
    opened = list(END_OF_THOUGHT.finditer(text))
    if opened:  # its beginning stood in the prompt
        text = text[opened[-1].end() :]
    turns = list(_turns(text)) or [""]
    for turn in turns:
        for match in reversed(list(ANSWER.finditer(turn))):
            inner = TAG.sub("\n", match[2])
            yield html.unescape(inner) if ENTITY.search(inner) else inner
        yield TAG.sub("\n", turn)
    yield TAG.sub("\n", TOKEN.sub("\n", text))


def _turns(text: str) -> Iterator[str]:
    """What the model says, turn by turn; what it lets others say is left out."""
    asked = False
    for number, part in enumerate(re.split(f"{TOKEN.pattern}|{ROLE.pattern}", text, flags=re.M)):
        if not part:
            continue
        name = part.strip("<>|｜[]# \t:\n").lower()
        if number % 3:  # a mark
            if name in ASKS or part == "[INST]":
                asked = True
            elif name in ANSWERS_ROLE or part == "[/INST]":
                asked = False
            continue
        first, _, rest = part.lstrip("\n").partition("\n")
        if first.strip().lower() in (*ASKS, *ANSWERS_ROLE):
            asked = first.strip().lower() in ASKS
            part = rest
        if not asked and part.strip():
            yield part


# ---- JSON, fences, sentences ----


def _program(text: str, depth: int = 0) -> str:
    """The program in a piece of a reply, or what comes nearest to one."""
    text = _clean(text)
    tree = parsed(text)
    if depth < MOST_WRAPPINGS:
        wrapped = _data(text, tree)
        if wrapped is not None:
            code = joined([_program(one, depth + 1) for one in wrapped])
            if code is not None:
                return code
    if tree is not None:
        return without_remarks(text)
    blocks = [_clean(block) for block in _fenced(text)]
    if blocks and depth < MOST_WRAPPINGS:
        blocks = [
            _program(block, depth + 1) if parsed(block) is None else block for block in blocks
        ]
        code = joined([_without_language(block) for block in blocks])
        if code is not None:
            return without_remarks(_clean(code))
        if any(map(_mentions_cadquery, blocks)):
            # a chatty reply also fences its install command and its output
            return max(blocks, key=lambda block: (_mentions_cadquery(block), len(block)))
    for plain in _unmarked(text):
        runs = code_runs(plain)
        code = joined([without_remarks(_clean(run)) for run in runs]) if runs else None
        if code is not None:
            return _clean(code)
    if blocks:
        return max(blocks, key=len)
    return _clean(_without_prose(text.splitlines()))


def _mentions_cadquery(block: str) -> bool:
    return bool(re.search(r"\bcq\.|^\s*(import|from) cadquery", block, re.MULTILINE))


def _without_language(block: str) -> str:
    first, _, rest = block.partition("\n")
    return rest if first.strip().lower() in LANGUAGES else block


def _unmarked(text: str) -> Iterator[str]:
    """A text without fences that enclose nothing, then its spans of code and its prompts alone."""
    yield "\n".join("" if re.match(r"\s*(```|~~~)", line) else line for line in text.split("\n"))
    spans = [_without_language(_clean(span)) for span in SPAN.findall(text)]
    yield "\n\n".join(span for span in spans if builds(span))
    if PROMPT.search(text):
        lines = [line for line in text.split("\n") if PROMPT.match(line)]
        yield "\n".join(PROMPT.sub("", line, count=1) for line in lines)
    if "\n" not in text.strip() and "\\n" in text:
        yield text.replace("\\n", "\n").replace('\\"', '"')


def _data(text: str, tree: ast.Module | None) -> list[str] | None:
    """The strings in a text that is data, as JSON or as Python writes it; None if it is a program.

    Also of JSON that stands among sentences.
    """
    if tree is not None:
        if len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
            return None
        value = tree.body[0].value
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name | ast.Attribute):
            # A tool that is called with the program as a string.
            strings = [*value.args, *(word.value for word in value.keywords)]
            if not strings or not all(isinstance(one, ast.Constant) for one in strings):
                return None
            if getattr(value.func, "id", "") in ("exec", "eval", "print"):
                return None
        elif not isinstance(value, ast.Dict | ast.List | ast.Tuple | ast.Constant):
            return None
    found: list[str] = []
    for start in [match.start() for match in re.finditer(r"^\s*[{\[\"]", text, re.M)][
        :MOST_CLOSINGS
    ]:
        try:
            value, _ = json.JSONDecoder(strict=False).raw_decode(text, _skip_space(text, start))
        except (ValueError, RecursionError):
            continue
        found = [one for one in _strings(value) if _may_hold_code(one)]
        if found:
            return found
    if tree is not None:
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        found = [node.value for node in nodes if isinstance(node.value, str)]
        found = [one for one in found if _may_hold_code(one)]
    return found or None


def _skip_space(text: str, start: int) -> int:
    return start + len(text[start:]) - len(text[start:].lstrip())


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        if sum(map(_mentions_cadquery, value)) > 1 and any("\n" in one.strip() for one in value):
            yield from value
        else:  # one line each, as notebooks have them
            yield ("" if value[0].endswith("\n") else "\n").join(value)
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _may_hold_code(text: str) -> bool:
    return bool(re.search(r"\bcq\b|cadquery", text)) and len(text) > 12


def _fenced(text: str) -> list[str]:
    """The blocks between fences: of backticks, tildes or quotes; open ends and one line too."""
    lines = text.split("\n")
    blocks: list[str] = []
    at = 0
    while at < len(lines) and len(blocks) < MOST_BLOCKS:
        one = ONE_LINE.search(lines[at])
        if one and (FIRST_CODE.match(one[2]) or _mentions_cadquery(one[2])):
            blocks.append(one[2])
            at += 1
            continue
        quoted = re.match(r"[ \t]*>[ \t]?", lines[at])
        match = FENCE.match(lines[at])
        if match is None or not _opens(match):
            at += 1
            continue
        first = match["info"][LANGUAGE.match(match["info"]).end() :]  # type: ignore[union-attr]
        if re.match(r"(import|from)\s", match["info"]):
            first = match["info"]
        head = [first] if re.match(r"(import|from)\s", first) or "cq." in first else []
        body = lines[at + 1 :]
        if quoted:
            body = [re.sub(r"^[ \t]*>[ \t]?", "", line) for line in body]
        block, used = _until_closed(head, body, match["mark"])
        blocks.append(block)
        at += 1 + used
    return blocks


def _opens(match: re.Match[str]) -> bool:
    before, info = match["before"].strip(" \t>"), match["info"]
    return not before or bool(LANGUAGE.fullmatch(info)) and not re.search(r"['\"#]", before)


def _until_closed(head: list[str], lines: list[str], mark: str) -> tuple[str, int]:
    """The block up to the fence that closes it, and how many lines it took.

    That is the first after which the block parses, because a docstring may hold fences too; else
    simply the first.
    """
    ends: list[tuple[list[str], int]] = []
    for number, line in enumerate(lines):
        bare = line.strip()
        if bare.startswith(mark):
            # A fence with a language opens the next block: this one was never closed.
            opens = bool(re.match(r"[A-Za-z{]", bare.lstrip(mark[0]).strip()))
            ends.append(([*head, *lines[:number]], number if opens else number + 1))
        if len(ends) >= MOST_CLOSINGS:
            break
    on_a_line = [
        ([*head, *lines[:number], line.rstrip()[: -len(mark)]], number + 1)
        for number, line in enumerate(lines[: ends[-1][1] if ends else None])
        if line.rstrip().endswith(mark) and not line.strip().startswith(mark)
    ][:MOST_CLOSINGS]
    for body, used in (*ends, *on_a_line):
        block = textwrap.dedent("\n".join(body))
        if block.strip() and parsed(block) is not None:
            return block, used
    if ends or on_a_line:
        body, used = (ends or on_a_line)[0]
        return "\n".join(body), used
    return "\n".join([*head, *lines]), len(lines)


def _without_prose(lines: list[str]) -> str:
    """Sentences before the first line of code and after the last one taken off."""
    first = next((i for i, line in enumerate(lines) if _starts(line)), None)
    if first is None:
        return "\n".join(lines)
    lines = lines[first:]
    for _ in range(MOST_REMARKS):
        if parsed("\n".join(lines)) is not None:
            break
        last = max((i for i, line in enumerate(lines) if line.strip()), default=0)
        if last == 0 or not is_prose(lines[last]):
            break  # broken code, not a sentence: it has to fail
        lines = lines[:last]
    return "\n".join(lines)


def _starts(line: str) -> bool:
    code = line.strip()
    return bool(FIRST_CODE.match(code)) and (parsed(code) is not None or not is_prose(line))
