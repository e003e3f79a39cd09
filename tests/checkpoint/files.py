"""Tiny checkpoints of the shapes that users bring, and small helpers over written folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from tokenadapt.checkpoint.source import SourceCheckpoint, open_source
from tokenadapt.checkpoint.writer import write_checkpoint_tensors
from tokenadapt.checkpoint.written import NewTable, WrittenTensors

ROWS = 300  # no other dimension of these models is 300


def _llama(**config):
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=ROWS, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, **config,
        )
    )  # fmt: skip


def _gemma3():
    text = {
        "vocab_size": ROWS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return transformers.Gemma3ForConditionalGeneration(config)


def _bert():
    config = transformers.BertConfig(
        vocab_size=ROWS, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    return transformers.BertForMaskedLM(config)


def _t5(**config):
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=ROWS, d_model=16, d_ff=24, num_layers=1, num_heads=2, d_kv=8, **config)
    )


def _bart():
    config = transformers.BartConfig(
        vocab_size=ROWS, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=24, decoder_ffn_dim=24,
        encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    return transformers.BartForConditionalGeneration(config)


def _phi():
    config = transformers.PhiConfig(
        vocab_size=ROWS, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    return transformers.PhiForCausalLM(config)  # untied, with a bias on its head


MODELS = {
    "llama-tied": lambda: _llama(tie_word_embeddings=True),
    "llama-untied": lambda: _llama(tie_word_embeddings=False),
    "llama-bf16": lambda: _llama(tie_word_embeddings=False).to(torch.bfloat16),
    "llama-fp16": lambda: _llama(tie_word_embeddings=True).to(torch.float16),
    "gemma3-nested": _gemma3,
    "bert": _bert,
    "t5": _t5,
    "bart": _bart,
    "phi-bias": _phi,
}
AUTO = {
    "causal": transformers.AutoModelForCausalLM,
    "masked": transformers.AutoModelForMaskedLM,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
}


def save(name: str, folder: Path, *, sharded: bool = False) -> Path:
    """A saved model by name; `sharded` gives many small shards and an index."""
    torch.manual_seed(0)
    model = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():  # no bias of zeros: a lost one would not show
            parameter.copy_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(folder, max_shard_size="12KB" if sharded else "1GB")
    return folder


def rewrite(folder: Path, change) -> None:
    """Load the tensors of a single-file checkpoint, let `change` edit the dictionary, and save them again."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_json(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def same_table(source: SourceCheckpoint, role, block: int = 77) -> NewTable:
    """The old table as a new one, in blocks of an odd size."""
    table = source.table(role)
    return NewTable(table.shape, table.dtype, lambda: iter_rows(table, block))


def iter_rows(table, block: int):
    for first in range(0, table.shape[0], block):
        yield table.rows(np.arange(first, min(first + block, table.shape[0])))


def random_table(rows: int, width: int, dtype=torch.float32, seed: int = 1) -> NewTable:
    made = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return NewTable((rows, width), dtype, lambda: iter(made.split(100)))


def whole(table: NewTable) -> torch.Tensor:
    return torch.cat(list(table.blocks()))


def write_wider(folder: Path, out: Path, rows: int = 340, **options) -> tuple[SourceCheckpoint, WrittenTensors, dict]:
    """Write random tables of `rows` rows; gives the source, the record, and the new tables by role."""
    source = open_source(folder)
    out.mkdir()
    roles = ("input", "output") if not source.tied or options.get("untie") else ("input",)
    tables = {
        role: random_table(rows, source.width, source.table(role).dtype, seed) for seed, role in enumerate(roles, 1)
    }
    biases = {}
    for ref in source.biases:
        old = source.bias(ref)
        biases[ref.name] = torch.arange(rows).to(old.dtype).reshape((1, rows) if old.ndim == 2 else (rows,))
    return source, write_checkpoint_tensors(source, out, tables, biases, **options), tables
