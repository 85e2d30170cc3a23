"""Several blocks of code in one reply: which of them is the program, and which belong to it.

    program = joined(["import cadquery as cq\nplate = cq.Workplane().box(4, 2, 1)",
                      "result = plate.edges().fillet(.1)"])         # both, one after the other

Decided by the text alone; nothing is run. A block that uses names of earlier ones gets those
before it; a later block that stands for itself replaces the draft. Left out: finding the blocks
(reply.py).
"""

from __future__ import annotations

import ast
import builtins
import itertools
import keyword
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# What a program finds without an import, as metrics/ runs it.
PROVIDED = frozenset(dir(builtins)) | {
    "cq", "cadquery", "np", "numpy", "show_object", "debug", "log",
    "__name__", "__file__", "__doc__",
}  # fmt: skip
MOST_LINES = 100_000  # that are parsed for one reply, those parsed again counted again
MOST_BLOCKS = 60  # of a reply: a longer one is no answer
LANGUAGES = {"python", "python3", "py", "cadquery", "code", "copy"}
BUILDERS = {"Workplane", "Sketch", "Assembly", "Solid", "Compound", "Shape", "Face", "Wire"}


@dataclass(frozen=True)
class Snippet:
    """A block that parses: what it binds at the top, what it needs from before, what it does."""

    text: str
    statements: frozenset[str]
    binds: frozenset[str]
    imported: frozenset[str]
    needs: frozenset[str]
    imports: str  # its import statements alone
    last: str  # the name assigned last at the top
    imports_cadquery: bool
    builds: bool  # it makes geometry, by itself or of what stands before it
    open_names: bool  # `from x import *`: which names it has cannot be said


def parsed(text: str) -> ast.Module | None:
    """The syntax tree of a text; None where it is no Python, or nests too deeply."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return None if any(map(_is_bullet, tree.body)) else tree


def _is_bullet(statement: ast.stmt) -> bool:
    """`* w = width`, which Python refuses only when it compiles."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(isinstance(target, ast.Starred) for target in targets)


def builds(text: str) -> bool:
    """Whether a text parses and makes geometry with CadQuery."""
    tree = parsed(text)
    return tree is not None and _block(text, tree).builds


def joined(texts: Sequence[str]) -> str | None:
    """The program in blocks of code, in their order; None where none of them makes geometry.

    The last one that is whole, with the earlier ones that it needs. What only repeats statements
    of an earlier block explains it, and is left out.
    """
    blocks: list[Snippet] = []
    whole: dict[int, bool] = {}  # the blocks of the program so far, False: only their imports
    sound = False
    for text in texts[:MOST_BLOCKS]:
        tree = parsed(text)
        if tree is None or not tree.body:
            continue
        block = _block(text, tree)
        number = len(blocks)
        blocks.append(block)
        if any(block.statements <= other.statements for other in blocks[:-1]):
            continue
        members, missing = _needed(blocks, number)
        if whole and not block.imports_cadquery and sum(members.values()) == 1 and not missing:
            # It needs nothing but CadQuery: one more piece, a new version, or an example.
            if not block.binds & _bound(blocks, whole):
                members = whole | members
            elif not block.binds & _wanted(blocks, whole):
                continue
        if not any(blocks[i].builds for i in members):
            whole = whole or members
            continue
        complete = not missing or any(blocks[i].open_names for i in members)
        if complete or not sound:
            whole, sound = members, complete
    if not any(blocks[i].builds for i in whole):
        return None
    return "\n".join(
        blocks[i].text if all_of_it else blocks[i].imports for i, all_of_it in sorted(whole.items())
    )


def _bound(blocks: list[Snippet], whole: dict[int, bool]) -> frozenset[str]:
    return frozenset().union(*(blocks[i].binds - blocks[i].imported for i in whole))


def _wanted(blocks: list[Snippet], whole: dict[int, bool]) -> frozenset[str]:
    """The name that holds what the program so far comes to."""
    last = blocks[max(whole)].last
    return frozenset({"result"} if "result" in _bound(blocks, whole) else {last})


def _needed(blocks: list[Snippet], number: int) -> tuple[dict[int, bool], set[str]]:
    """The blocks that one needs, False where their imports do; and the names that none has."""
    missing = set(blocks[number].needs)
    members = {number: True}
    for i in range(number - 1, -1, -1):
        has = missing & blocks[i].binds
        if not has:
            continue
        missing -= has
        members[i] = not has <= blocks[i].imported
        if members[i]:
            missing |= blocks[i].needs
    return members, missing - PROVIDED


# ---- one block ----


def _block(text: str, tree: ast.Module) -> Snippet:
    imports = [one for one in tree.body if isinstance(one, ast.Import | ast.ImportFrom)]
    names = [alias for one in imports for alias in one.names]
    bound: set[str] = set()
    later: set[str] = set()
    needs = _walk(tree.body, bound, later)
    needs |= later - bound
    cadquery = {"cq", "cadquery"}
    for one in imports:
        if isinstance(one, ast.ImportFrom) and (one.module or "").startswith("cadquery"):
            cadquery |= {alias.asname or alias.name for alias in one.names}
        elif isinstance(one, ast.Import):
            of_it = [alias for alias in one.names if alias.name.startswith("cadquery")]
            cadquery |= {alias.asname or alias.name.partition(".")[0] for alias in of_it}
    return Snippet(
        text=text,
        statements=frozenset(ast.dump(one) for one in tree.body),
        binds=frozenset(bound),
        imported=frozenset(alias.asname or alias.name.partition(".")[0] for alias in names),
        needs=frozenset(needs),
        imports="\n".join(ast.unparse(one) for one in imports),
        last=_last_name(tree),
        imports_cadquery=any("cadquery" in ast.unparse(one) for one in imports),
        builds=_makes_geometry(tree, cadquery),
        open_names=any(alias.name == "*" for alias in names),
    )


def _last_name(tree: ast.Module) -> str:
    for one in reversed(tree.body):
        targets = getattr(one, "targets", [getattr(one, "target", None)])
        if targets and isinstance(targets[0], ast.Name):
            return targets[0].id
    return ""


def _makes_geometry(tree: ast.Module, cadquery: set[str]) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner in cadquery and node.attr in BUILDERS:
                return True
        elif isinstance(node, ast.Name) and node.id in BUILDERS:
            return True
    return False


def _walk(statements: Iterable[ast.AST], bound: set[str], later: set[str]) -> set[str]:
    """Names that statements use before they bind them; `later`: those used inside functions."""
    needs: set[str] = set()
    for one in statements:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            used, own = _names(one)
            later |= used - own
            bound.add(one.name)
            continue
        if isinstance(one, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name.partition(".")[0] for alias in one.names}
            continue
        bodies = [getattr(one, name, []) for name in ("body", "orelse", "finalbody")]
        handlers = getattr(one, "handlers", [])
        inner = {id(child) for body in (*bodies, handlers) for child in body}
        stores: set[str] = set()
        for child in ast.iter_child_nodes(one):
            if id(child) in inner:
                continue
            used, own = _names(child)
            # The target of an assignment is bound after its value was read.
            target = child in getattr(one, "targets", [getattr(one, "target", None)])
            needs |= used - (set() if target else own) - bound
            stores |= own
        if isinstance(one, ast.AugAssign) and isinstance(one.target, ast.Name):
            needs |= {one.target.id} - bound
        bound |= stores
        for handler in handlers:
            if handler.name:
                bound.add(handler.name)
        for body in (*bodies, *(handler.body for handler in handlers)):
            needs |= _walk(body, bound, later)
    return needs


def _names(node: ast.AST) -> tuple[set[str], set[str]]:
    """Names that are read, and names that are bound, anywhere in a node."""
    used: set[str] = set()
    own: set[str] = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Name):
            (used if isinstance(one.ctx, ast.Load) else own).add(one.id)
        elif isinstance(one, ast.arg):
            own.add(one.arg)
        elif isinstance(one, ast.FunctionDef | ast.ClassDef) and one is not node:
            own.add(one.name)
    return used, own


# ---- code between sentences ----

NAME = r"[^\W\d]\w*"
TARGET = rf"{NAME}(?:\.{NAME}|\[[^\]\n]*\])*"

# `import x`, `from x import y`, `name = `, `a, b = `, `name: type = `, `call(`, `def f`, ...: how
# a program begins
FIRST_CODE = re.compile(
    r"(?:import|from)\s+[\w.]+(?:\s*,\s*[\w.]+)*(?:\s+(?:import|as)\b.*)?$"
    rf"|[(\[]?\*?{TARGET}(?:\s*,\s*\*?{TARGET})*\s*,?[)\]]?\s*(?:[-+*/]|//|\*\*)?=(?!=)"
    rf"|{NAME}\s*:\s*[\w.\[\], |\"']+=[^=]|{NAME}(?:\.{NAME})*\("
    r"|(?:async\s+)?def\s+\w|class\s+\w|@\w|try\s*:\s*(?:#.*)?$|(?:if|for|while|with)\s.*:\s*(?:#.*)?$"
    r'|[rRbBuUfF]?(?:"""|\'\'\')'
)
GOES_ON = re.compile(
    r"[)\]}.,+=]|(?:else|elif|except|finally|return|raise|assert|pass|break|continue|global|del"
    r"|lambda|yield|import|from|for|while|if|with|try|def|class)\b"
)

# Outside of these a line speaks for itself.
QUOTED = re.compile(r"(?<!\w)(['\"]).*?(?:\1|$)|`[^`]*`?|#.*$")
ADDRESS = re.compile(r"https?://\S+")
WORDS = re.compile(r"(?:[^\W\d_][\w'’-]*[,;:.]?[ \t]+){2,}[^\W\d_][\w'’-]*")
LISTED = re.compile(
    r"\s*(?:[-*+•]\s+\S|\*\*|\d+[.)]\s|>\s|\|.*\|\s*$|#{1,6}\s|[-*_=]{3,}\s*$|</?\w|\\(?:begin|end)\b)"
)
MEASURED = re.compile(
    rf"\s*(?:{NAME}\s+)*{NAME}\s*=\s*[~≈]?\d[\d.,]*\s*(?:mm|cm|m|in|°|mm[²³23^]\S*)\b"
)


def is_prose(line: str) -> bool:
    """Whether a line that does not parse is a sentence, in any language, and no broken code."""
    if LISTED.match(line) or MEASURED.match(line):
        return True
    bare = QUOTED.sub(" ", ADDRESS.sub("link", line))
    if any(_speaks(words[0]) for words in WORDS.finditer(bare)):
        return True
    if FIRST_CODE.match(bare.strip()) or GOES_ON.match(bare.strip()):
        return False
    if not bare.isascii():
        return True
    if re.search(r"=|\w[(\[]|[^\W\d]\.[^\W\d]", bare):
        return False
    return bool(re.search(r"[^\W\d_]", line)) or not line.strip()


def _speaks(words: str) -> bool:
    """Three words in a row of which two neighbours are none of Python's: no statement has that."""
    pairs = itertools.pairwise(words.split())
    return any(
        one[-1] not in ",;:." and not keyword.iskeyword(one) and not keyword.iskeyword(other)
        for one, other in pairs
    )


def code_runs(text: str) -> list[str] | None:
    """Stretches of lines that parse, between sentences; None where code among them is broken.

    Broken code counts unless a program of its own follows it, because it has to fail.
    """
    lines = text.split("\n")
    runs: list[str] = []
    at, spent, broken, told = 0, 0, False, True
    while at < len(lines) and len(runs) < MOST_BLOCKS:
        line = lines[at]
        starts = FIRST_CODE.match(line.strip()) is not None
        run, end, cost = _longest(lines, at, MOST_LINES - spent) if starts else ("", at, 0)
        spent += cost
        if spent >= MOST_LINES:
            return None
        if end > at:
            broken = broken or not told  # it does not go on from the run that it touches
            told = False
            if broken and re.match(r"\s*(import|from)\s+cadquery", run):
                runs, broken = [], False
            runs.append(run)
            at = end
            continue
        if line.strip() and not is_prose(line):
            # Before the first program only what touches it belongs to it.
            broken = broken or bool(runs) or (starts and _touches(lines, at))
        elif line.strip():
            told = True
        at += 1
    return None if broken else runs


def _touches(lines: list[str], at: int) -> bool:
    return at + 1 >= len(lines) or bool(lines[at + 1].strip())


def without_remarks(text: str) -> str:
    """A program that parses without the bare words that a model put before or after it.

    `python` before it, `Done` after it: names that nothing binds, alone on their line.
    """
    tree = parsed(text)
    while tree is not None and len(tree.body) > 1:
        lines = text.split("\n")
        first, last = tree.body[0], tree.body[-1]
        if _opens(_word(first)) and first.lineno < tree.body[1].lineno:
            text = "\n".join(lines[first.lineno :])
        elif _is_remark(_word(last), tree) and last.lineno > (tree.body[-2].end_lineno or 0):
            text = "\n".join(lines[: last.lineno - 1])
        else:
            break
        text = text.strip("\n")
        tree = parsed(text)
    return text


def _word(statement: ast.stmt) -> str:
    """The word that is a whole statement, also as `Note: word`; else nothing."""
    if isinstance(statement, ast.AnnAssign) and statement.value is None:
        plain = isinstance(statement.annotation, ast.Name)
        return statement.target.id if plain and isinstance(statement.target, ast.Name) else ""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Name):
        return statement.value.id
    return ""


def _opens(word: str) -> bool:
    return word.lower() in LANGUAGES or (word not in PROVIDED and word[:1].isupper())


def _is_remark(word: str, tree: ast.Module) -> bool:
    if not word or word in PROVIDED:
        return False
    known = {one.id for one in ast.walk(tree.body[0]) if isinstance(one, ast.Name)}
    for one in tree.body[:-1]:
        used, own = _names(one)
        known |= used | own
    # A word that begins like a name may be one that broke off.
    return (word[0].isupper() or not word.isascii()) and not any(
        name.startswith(word) for name in known
    )


def _longest(lines: list[str], start: int, most: int) -> tuple[str, int, int]:
    """The longest stretch from a line on that parses, the line after it, and the lines parsed."""
    indent = _indent(lines[start])
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) >= indent):
        end += 1
    flat = [line[indent:] if line.strip() else "" for line in lines[start:end]]
    cost = 0
    while flat and cost < most:
        cost += len(flat)
        try:
            tree = ast.parse("\n".join(flat))
            bullet = next((one for one in tree.body if _is_bullet(one)), None)
            if bullet is None:
                break
            flat = flat[: bullet.lineno - 1]
        except SyntaxError as error:
            flat = flat[: max(0, min(error.lineno or len(flat), len(flat)) - 1)]
        except (ValueError, RecursionError, MemoryError):
            return "", start, cost
    return "\n".join(flat).strip("\n"), start + len(flat), cost


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
