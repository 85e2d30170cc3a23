"""Protects which program is read from a reply, wrapped as models do it, and never repaired."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from image2cad.cad import extract_code

SAMPLES = Path(__file__).resolve().parents[1] / "data" / "samples"
HEAD = (
    'import cadquery as cq\n\nlong, wide = 30.0, 12.0\nbar = cq.Workplane("XY").box(long, wide, 4)'
)
TAIL = 'result = bar.faces(">Z").workplane().hole(3)'
CODE = f"{HEAD}\n{TAIL}"
CUBE = "import cadquery as cq\nresult = cq.Workplane().box(1, 1, 1)"
DRAFT = f'{HEAD}\nresult = bar.fases(">Z").workplane().hole(3)  # the hole goes through the bar'
quoted = "\n".join(f"> {line}" for line in CODE.splitlines())
indented = "\n".join(f"  {line}" for line in CODE.splitlines())

REPLIES = {
    # ---- marks of models and turns ----
    "box": f"I take long = 30.\n<|begin_of_box|>{CODE}<|end_of_box|>",
    "answer": f"<think>long = 3 mm</think>\n<answer>\n{CODE}\n</answer>",
    "answer on a line": f"<answer>{CODE}</answer>",
    "reasoning": f"<reasoning>```python\n{CUBE}\n```</reasoning><code>{CODE}</code>",
    "a thought that began in the prompt": f"So:\n```python\n{CUBE}\n```\n</think>\n{CODE}",
    "channels": f"<|channel|>analysis<|message|>{CUBE}<|end|><|start|>assistant"
    f"<|channel|>final<|message|>{CODE}<|return|>",
    "end of a message": f"{CODE}<|im_end|>\n<|im_start|>user\nthanks",
    "headers": f"<|start_header_id|>assistant<|end_header_id|>\n\n{CODE}<|eot_id|>",
    "wide marks": f"{CODE}<｜end▁of▁sentence｜>",
    "turns of Gemma": f"<start_of_turn>model\n{CODE}<end_of_turn>\n<start_of_turn>user\nMore",
    "instructions": f"[INST] Draw it [/INST] {CODE}</s>[INST] more [/INST] {CUBE}",
    "tags in brackets": f"[PYTHON]\n{CODE}\n[/PYTHON]",
    "the dialogue goes on": f"{CODE}\n\nUSER: <image>\nAnother: ASSISTANT: {CUBE}",
    "the dialogue goes on with humans": f"{CODE}\n\nHuman: thanks\n\nAssistant: with pleasure",
    "whose turn it is": f"ASSISTANT: {CODE}",
    "byte order mark": f"\ufeff```python\n{CODE}\n```",
    # ---- JSON ----
    "JSON": json.dumps({"why": "a bar with cq", "cadquery_code": CODE}),
    "JSON in a fence": f"```json\n{json.dumps({'code': CODE}, indent=1)}\n```",
    "JSON among sentences": f"Here:\n{json.dumps({'code': CODE}, indent=1)}\nDone.",
    "JSON around a fence": json.dumps({"text": f"Sure\n```python\n{CODE}\n```"}),
    "JSON of lines": json.dumps({"code": CODE.splitlines()}),
    "a JSON string": json.dumps(CODE),
    "a dict of Python": repr({"code": CODE}),
    "a tool call": f"<tool_call>{json.dumps({'arguments': {'code': CODE}})}</tool_call>",
    # ---- fences ----
    "tildes": f"~~~python\n{CODE}\n~~~",
    "braces": f"```{{python}}\n{CODE}\n```",
    "a title": f'```python title="a.py"\n{CODE}\n```',
    "opened in a sentence": f"Sure! ```python\n{CODE}\n```",
    "closed in a line": f"```python\n{CODE}```",
    "only closed": f"{CODE}\n```\n\nThat is a bar.",
    "in a quotation": f"> ```python\n{quoted}\n> ```",
    "in a document": f"````markdown\nText\n```python\n{CODE}\n```\n````",
    "the language on its own line": f"```\npython\n{CODE}\n```",
    "quotes": f"'''python\n{CODE}\n'''",
    "HTML": f'<pre><code class="python">{CODE.replace(">", "&gt;")}</code></pre>',
    "YAML": f"code: |\n{indented}",
    "LaTeX": f"\\begin{{lstlisting}}[language=Python]\n{CODE}\n\\end{{lstlisting}}",
    # ---- sentences ----
    "measures before": f"long = 30 as seen in the picture, wide = 12.\n\n{CODE}",
    "German": f"Hier ist er:\n\n{CODE}\n\nÜbrigens: Maße in mm (ungefähr).",
    "Chinese": f"代码：\n\n{CODE}\n\n说明：尺寸为 30 (mm)。",
    "one Chinese word": f"{CODE}\n\n完成",
    "Russian": f"{CODE}\n\nГотово!",
    "one word": f"{CODE}\n\nDone!",
    "one word that parses": f"{CODE}\n\nDone",
    "bold": f"{CODE}\n\n**Why:** `box` = the bar.",
    "numbers": f"{CODE}\n\n1. A bar.\n2. A hole = 3 mm.",
    "a table": f"{CODE}\n\n| a | b |\n|---|---|\n| 1 | 2 |",
    "an address": f"{CODE}\n\nSee https://cadquery.readthedocs.io/en/latest",
    "between sentences": f"First a bar:\n\n{HEAD}\n\nThen drill:\n\n{TAIL}\n\nDone.",
    # ---- several blocks ----
    "corrected": f"```python\n{DRAFT}\n```\nOops, corrected:\n```python\n{CODE}\n```",
    "in two steps": f"```python\n{HEAD}\n```\nThe hole:\n```python\n{TAIL}\n```",
    "explained": f"```python\n{CODE}\n```\nThe hole:\n```python\n{TAIL}\n```",
    "explained in numbers": f"```python\n{CODE}\n```\nThe bar:\n```python\n"
    'bar = cq.Workplane("XY").box(30, 12, 4)\n```',
    "with a parameter to change": f"```python\n{CODE}\n```\nLonger:\n```python\nlong = 50\n```",
}


@pytest.mark.parametrize("kind", REPLIES)
def test_the_program_is_found(kind):
    lines = [line for line in extract_code(REPLIES[kind]).splitlines() if line.strip()]
    assert lines == [line for line in CODE.splitlines() if line.strip()]


@pytest.mark.parametrize(
    "before",
    [
        "long, wide = 30.0, 12.0",
        "long: float = 30.0",
        "try:\n    import math\nexcept ImportError:\n    raise",
        "def bar():\n    return 1",
        "@staticmethod\ndef bar():\n    return 1",
        "a = b = 3",
        "import math, sys",
    ],
)
def test_code_may_begin_with_any_statement(before):
    code = f"{before}\n{CUBE}"
    assert extract_code(f"Here is the code for the part:\n\n{code}") == code
    assert extract_code(code) == code


def test_steps_are_joined_and_what_they_need_comes_first():
    steps = [
        "import cadquery as cq",
        "base = cq.Workplane().box(4, 2, 1)",
        "pin = cq.Workplane().circle(0.2).extrude(5)",
        "result = base.cut(pin)",
    ]
    reply = "\n".join(f"Step:\n```python\n{step}\n```" for step in steps)
    assert extract_code(reply) == "\n".join(steps)
    shown = f"```python\n{CODE}\n```\n```python\nshow_object(result)\n```\n```bash\nls\n```"
    assert extract_code(shown) == f"{CODE}\nshow_object(result)"


def test_a_docstring_may_hold_fences():
    code = f'"""A bar.\n\n```\nnot code\n```\n"""\n{CODE}'
    assert extract_code(f"```python\n{code}\n```") == code
    assert extract_code(code) == code


BROKEN = {
    "an open bracket": f"{HEAD}\nresult = bar.faces(",
    "an open block": f"{CODE}\nfor i in range(3",
    "half a name": f"{CODE}\nresul",
    "half an import": f"{CODE}\nfrom math import",
    "an operator too few": f"{HEAD}\nresult bar.faces()",
    "an operator too many": f"import cadquery as cq\nlong = = 3\n{TAIL}",
    "an indent": f"{CODE}\n  result = bar",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_code_is_never_repaired(kind):
    code = BROKEN[kind]
    for reply in (code, f"Sure:\n```python\n{code}\n```\nDone.", f"Here is the code:\n\n{code}"):
        assert extract_code(reply) == code


def test_programs_come_back_as_they_are():
    files = sorted(SAMPLES.rglob("metadata.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    codes = [row["cadquery"] for row in rows] + [CODE, DRAFT, *BROKEN.values()]
    assert len(codes) > 100
    for code in codes:
        assert extract_code(code) == code.strip()
        assert extract_code(extract_code(code)) == code.strip()
    for code in codes[: -len(BROKEN)]:
        assert extract_code(f"Sure:\n```python\n{code}\n```\nIt is = a part.") == code.strip()


@pytest.mark.parametrize(
    "text", ["<think>", "```python\n", "x = (\n", "{", "[\n", "USER:", "<|a|>", "`"]
)
def test_no_reply_takes_long(text):
    extract_code(text * 5000)  # the suite's own limit of time is the assertion
