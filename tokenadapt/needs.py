"""What the chosen methods want beside model and tokenizer: seen to be there before anything is opened."""

from __future__ import annotations

from pathlib import Path

from tokenadapt.choice import Choice
from tokenadapt.errors import RequestError
from tokenadapt.methods import Chosen
from tokenadapt.methods.options import parameters
from tokenadapt.methods.registry import find, lacks
from tokenadapt.methods.within import within
from tokenadapt.recipe import TransplantOptions


def check_needs(choice: Choice, options: TransplantOptions) -> None:
    """Raise RequestError where a method, or one that it names, lacks a corpus, a donor or a file. Nothing is read."""
    for asked in (*choice.methods.values(), choice.fallback):
        for chosen in within(asked):
            needs = find(chosen.name).needs
            if "corpus" in needs and not options.corpus:
                raise lacks(chosen.name, "corpus")
            if "donor" in needs and not options.donor:
                raise lacks(chosen.name, "donor")
            _check_files(chosen)


def _check_files(chosen: Chosen) -> None:
    method = find(chosen.name)
    files = [name for name, parameter in parameters(method.load()).items() if parameter.kind is Path]
    given = {name: path for name, path in chosen.options.items() if name in files}
    if "files" in method.needs and not given:
        raise RequestError(
            f"The method {chosen.name} needs a file, and none of its options {' and '.join(files)} names one.",
            f"Write {' or '.join(f'{chosen.name}:{name}=PATH' for name in files)}.",
        )
    for name, path in given.items():
        if not path.exists():
            raise RequestError(
                f"There is no file {path}, which the method {chosen.name} is to read ({name}).", "Correct its path."
            )
