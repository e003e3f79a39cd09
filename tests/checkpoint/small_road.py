"""A transplant of a tiny model with the plainest method, from this room's and the vocabulary's own parts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.tiny import LINES, save_tiny, tiny_tokenizer
from tokenadapt.checkpoint.chat import choose_template, turn_end
from tokenadapt.checkpoint.ids import translate_config
from tokenadapt.checkpoint.manifest import Manifest, describe_input, describe_output, library_versions
from tokenadapt.checkpoint.saved_plan import FILE, save_plan, vocabulary_hash
from tokenadapt.checkpoint.source import open_source
from tokenadapt.checkpoint.tokenizer_files import write_tokenizer
from tokenadapt.checkpoint.writer import write_checkpoint_tensors
from tokenadapt.checkpoint.written import NewTable
from tokenadapt.plan import Plan, build_table
from tokenadapt.vocab import align, byte_vocab, id_map, load_tokenizer, segment
from tokenadapt.vocab.types import Alignment

CHAT = "{% for m in messages %}{{ '<s>' + m['role'] + '\n' + m['content'] + '</s>' }}{% endfor %}"


def source_folder(folder: Path, *, tied: bool = True, chat: bool = False) -> Path:
    """A tiny model whose states share a direction, so that a row can be made to lose."""
    tokenizer = tiny_tokenizer("bytelevel-bpe", 420)
    if chat:
        tokenizer.chat_template = CHAT
    save_tiny(folder, tokenizer, tied=tied, extra_rows=4)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if "embed" in name or "lm_head" in name:
            tensor[:, 0] = 3.0 if "embed" in name else 0.5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def target_folder(folder: Path) -> Path:
    tokenizer = tiny_tokenizer("bytelevel-bpe", 460, (*LINES[::-1], "the quicker browner foxes slept under a road."))
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|tool|>"]})  # nothing in the source means this
    tokenizer.save_pretrained(folder)
    return folder


def small_road(model: Path, tokenizer: Path, out: Path, *, padding: int = 3, hash_untouched: bool = True) -> Path:
    """Write a whole result: pieces for missing rows, one losing row for unused ids."""
    source, old, new = open_source(model), load_tokenizer(str(model)), load_tokenizer(str(tokenizer))
    ours, theirs = byte_vocab(old), byte_vocab(new)
    alignment = align(ours, theirs, source_rows=source.rows, target_rows=len(theirs) + padding)
    cut = segment(ours, theirs, alignment)
    weight = np.repeat(1 / np.maximum(cut.counts, 1), cut.counts).astype(np.float32)
    plan = Plan(cut.start, cut.piece, weight)
    roles = ("input",) if source.tied else ("input", "output")
    loses = torch.zeros(source.width)
    loses[0] = -9.0
    out.mkdir()
    tables = {
        role: NewTable(
            (len(alignment.how), source.width),
            source.table(role).dtype,
            lambda role=role: build_table(source.table(role), alignment, plan, loses),
        )
        for role in roles
    }
    biases = {ref.name: _bias(source.bias(ref), alignment) for ref in source.biases}
    written = write_checkpoint_tensors(source, out, tables, biases, hash_untouched=hash_untouched)
    template = choose_template(old, new)
    made = translate_config(
        source.config, source.generation_config, id_map(ours, theirs, alignment), theirs.roles,
        rows=len(alignment.how), tied=source.tie_flag, chat_end=turn_end(new, template.template),
    )  # fmt: skip
    (out / "config.json").write_text(json.dumps(made.config))
    if made.generation_config is not None:
        (out / "generation_config.json").write_text(json.dumps(made.generation_config))
    write_tokenizer(new, out, positions=source.positions, chat_template=template.template)
    save_plan(
        out / FILE, alignment, dict.fromkeys(roles, plan), source=ours, target=theirs,
        methods=dict.fromkeys(roles, "pieces"),
    )  # fmt: skip
    Manifest(
        source=describe_input(str(model), model, ("config.json",), vocabulary=vocabulary_hash(ours), rows=source.rows),
        target=describe_input(str(tokenizer), tokenizer, ("tokenizer.json",), vocabulary=vocabulary_hash(theirs)),
        methods=dict.fromkeys(roles, "pieces"), options={"pad_to_multiple": 1, "corpus": ()}, seed=0,
        counts=alignment.counts(), spelled_alike=alignment.spelled_alike, changes=made.changes, chat=template.reason,
        versions=library_versions(), **describe_output(out, written),
    ).write(out)  # fmt: skip
    return out


def _bias(old: torch.Tensor, alignment: Alignment) -> torch.Tensor:
    new = torch.full((len(alignment.how),), float(old.min()) - 30.0)
    taken = torch.from_numpy(np.flatnonzero(alignment.source_id >= 0))
    new[taken] = old.reshape(-1)[torch.from_numpy(alignment.source_id)[taken]]
    return new.reshape((*old.shape[:-1], -1))


def read_ids(folder: Path, text: str) -> list[int]:
    return AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
