"""The text that `pocket` learns from: the standard library's source, language reference, and docstrings as dialogue.

Every machine with Python has it. Test suites and generated tables are left out. A file is held out when the hash of
its name says so; everything made from it (its docstrings too) is then held out with it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SPECIAL = ("<|pad|>", "<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>", "<|end|>")
PAD, BOS, EOS, USER, ASSISTANT, END = SPECIAL

# generated, not ours to learn from, or not part of every installation
SKIPPED = {"test", "tests", "idle_test", "encodings", "ensurepip", "lib2to3", "turtledemo"}
SKIPPED |= {"site-packages", "dist-packages"}

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<|assistant|>\\n' }}{% else %}{{ '<|user|>\\n' }}{% endif %}"
    "{{ message['content'] + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Texts:
    """Documents to learn from, and documents never learned from (plain source and prose, no dialogue)."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def held_out(name: str) -> bool:
    """One file in twenty, by the hash of its name relative to the library: the same on every machine."""
    return hashlib.sha256(name.encode()).digest()[0] < 13


def standard_library() -> Texts:
    """All documents, in the order of their names."""
    root = Path(sysconfig.get_paths()["stdlib"])
    train: list[str] = []
    kept_away: list[str] = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if SKIPPED.intersection(name.parts) or name.parts[0].startswith(("config-", "__phello")):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        if name.parts[0] == "pydoc_data":
            topics = list(documentation(text))
            train += [body for title, body in topics if not held_out(title)]
            kept_away += [body for title, body in topics if held_out(title)]
        elif held_out(name.as_posix()):
            kept_away.append(text)
        else:
            train.append(text)
            train.extend(dialogues(text, ".".join(name.with_suffix("").parts)))
    return Texts(tuple(train), tuple(kept_away))


def documentation(source: str) -> Iterator[tuple[str, str]]:
    """Title and text of each topic of `pydoc_data.topics`: the language reference in plain English."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            yield from ast.literal_eval(node).items()


def dialogues(source: str, module: str) -> Iterator[str]:
    """Question and answer per documented class and function, so that the chat markers' rows are trained."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        answer = inspect.cleandoc(ast.get_docstring(node) or "").split("\n\n")[0]
        if len(answer) >= 20 and not re.match(r"[\w.]+\(", answer):
            yield f"{USER}\nWhat does {module}.{node.name} do?{END}\n{ASSISTANT}\n{answer}{END}\n"
