"""The table of presets in the docs says what the presets do."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tokenadapt.training.presets import PRESETS, build, word_state

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
SAMPLE = "    if x1 == 12345:  # it's DON'T camelCase"


@pytest.mark.parametrize("name", PRESETS)
def test_the_docs_show_what_a_preset_does(name):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}`"))
    pieces = [piece.replace(" ", "␣") for piece, _ in build(word_state(name)).pre_tokenize_str(SAMPLE)]
    assert PRESETS[name].about in row
    assert "·".join(pieces) in row


def test_every_option_of_the_command_stands_in_its_help_and_in_the_options():
    from dataclasses import fields

    from tokenadapt.cli.train_tokenizer import train_tokenizer
    from tokenadapt.training.options import TrainingOptions

    names = {parameter.name for parameter in train_tokenizer.params}
    assert {field.name for field in fields(TrainingOptions)} == names - {"config", "as_json"}
    assert all(option.help for option in train_tokenizer.params if isinstance(option, click.Option))
