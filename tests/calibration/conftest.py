from __future__ import annotations

import pytest

from tests.tiny import LINES, save_tiny, tiny_tokenizer
from tokenadapt.recipe import TransplantOptions
from tokenadapt.transplant import transplant

TEXT = "\n".join(line for _ in range(3) for line in (*LINES, "the old fox of the sea sleeps in the quick night."))


@pytest.fixture(scope="session", params=["tied", "untied"])
def swapped(request, tmp_path_factory):
    """(source folder, transplanted folder) of a tiny Llama: 400 tokens to 460 others."""
    return make_swap(tmp_path_factory.mktemp("swap"), tied=request.param == "tied")


@pytest.fixture(scope="session")
def tied_swap(tmp_path_factory):
    return make_swap(tmp_path_factory.mktemp("swap"), tied=True)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder of short documents that hold new tokens."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = [
        *LINES,
        "the old fox of the sea sleeps in the quick night.",
        "In the night the lazy dog jumps over it all.",
    ]
    for number in range(24):
        words = [lines[(number + step) % len(lines)] for step in range(3)]
        (folder / f"{number:02}.txt").write_text(f"{number} " + " ".join(words), encoding="utf-8")
    return folder


def make_swap(folder, *, tied=True):
    source, target, out = folder / "source", folder / "target", folder / "swapped"
    save_tiny(source, tiny_tokenizer("bytelevel-bpe", 400), tied=tied)
    tiny_tokenizer("bytelevel-bpe", 460, (*LINES[::-1], "the old fox of the sea sleeps.")).save_pretrained(target)
    transplant(TransplantOptions(str(source), str(target), str(out), method="pieces", verify="tables"))
    return source, out
