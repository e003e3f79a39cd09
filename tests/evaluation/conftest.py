"""A model whose probabilities are known numbers, and checkpoints to score."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny import save_tiny
from tokenadapt.evaluation import TextEncoder

# P(next | this) over the ids <s> a b; <s> itself practically never comes.
TABLE = {0: {"a": 1 / 8, "b": 7 / 8}, 1: {"a": 3 / 4, "b": 1 / 4}, 2: {"a": 1 / 2, "b": 1 / 2}}


@dataclass(frozen=True)
class Text:
    text: str
    label: str = "one"


def known_model() -> LlamaForCausalLM:
    """The layers pass embeddings through (one-hot rows, doubled by the norm), the head holds log-probabilities."""
    config = LlamaConfig(
        vocab_size=3, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=64, tie_word_embeddings=False, rms_norm_eps=0.0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(4)[:3])
        logits = torch.full((3, 4), 0.0)
        for this, following in TABLE.items():
            logits[0, this] = -60.0
            for name, probability in following.items():
                logits[{"a": 1, "b": 2}[name], this] = torch.tensor(probability).log()
        model.lm_head.weight.copy_(logits / 2)
    return model.eval()


def letters() -> Tokenizer:
    """Three tokens: <s>, a and b."""
    made = Tokenizer(models.BPE(vocab={"<s>": 0, "a": 1, "b": 2}, merges=[]))
    made.add_special_tokens(["<s>"])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return made


@pytest.fixture
def known():
    """The known model with its encoder."""
    return known_model(), TextEncoder(letters(), (None, b"a", b"b"), begin=0)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tokenizers):
    """A tiny random causal checkpoint with a byte-level tokenizer, read only."""
    folder = tmp_path_factory.mktemp("evaluation") / "tiny"
    return save_tiny(folder, tokenizers["bytelevel-bpe"], extra_rows=5)


@pytest.fixture(scope="session")
def other(tmp_path_factory, tokenizers):
    """A second checkpoint with another tokenizer."""
    folder = tmp_path_factory.mktemp("evaluation") / "other"
    return save_tiny(folder, tokenizers["sentencepiece-bpe"], seed=1)


@pytest.fixture
def texts(tmp_path):
    """Two subsets of short and long documents, as a folder."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "prose.txt").write_text("the quick brown fox\n\njumps over the lazy dog, and sleeps on.\n\n" * 6, "utf-8")
    (folder / "mixed.txt").write_text("Straße 12345 你好\n\nx == 0:\n\n👩‍👩‍👧 naïve\n\n" * 5, "utf-8")
    return folder
