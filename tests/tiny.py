"""Tiny tokenizers of every family and tiny models, made in memory and offline."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

FAMILIES = ("bytelevel-bpe", "sentencepiece-bpe", "unigram", "wordpiece")
LINES = (
    "the quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "Die Straße führt über den Fluß; été, naïve, 你好世界, नमस्ते, 👩‍👩‍👧 and 👍🏽.",
    "def add(a, b):\n\treturn a + b  # 12345 + 678 = 13023\n",
    "In the middle of the night the old man of the sea went to the end of the road.",
    "    if x == 0:\r\n        print('zero', 0.001, x ** 2)\r\n",
)
SPECIALS = ("<unk>", "<s>", "</s>", "<pad>")


def tiny_tokenizer(family: str, vocab_size: int = 400, lines: tuple[str, ...] = LINES) -> PreTrainedTokenizerFast:
    """A tokenizer of `family` trained on `lines`; bos <s>, eos </s>, unk <unk>, pad <pad>."""
    corpus = [line for line in lines for _ in range(8)]
    special = list(SPECIALS)
    if family == "bytelevel-bpe":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
        )
    elif family == "sentencepiece-bpe":
        made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.pre_tokenizer = pre_tokenizers.Split(Regex("\n"), "isolated")  # the trainer's bound; removed below
        tail = [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), *tail])
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size + 256, special_tokens=special, show_progress=False, max_token_length=12
        )
    elif family == "unigram":
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=vocab_size, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    elif family == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece(prefix="##")
        trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    else:
        raise ValueError(family)
    made.train_from_iterator(corpus, trainer)
    if family == "sentencepiece-bpe":
        made = _without_byte_specials(made)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def _without_byte_specials(made: Tokenizer) -> Tokenizer:
    """Byte tokens are entries of the model, not added tokens: Llama's layout."""
    import json

    state = json.loads(made.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    state["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(state))


def tiny_model(
    rows: int, *, tied: bool = True, width: int = 32, layers: int = 2, seed: int = 0, **config: object
) -> LlamaForCausalLM:
    """A random two-layer Llama with `rows` rows in its tables.

    As in a trained model its states share a direction: without one, no row could be improbable at every state.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=rows, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=tied,
            bos_token_id=1, eos_token_id=2, pad_token_id=3, **config,
        )
    )  # fmt: skip
    with torch.no_grad():
        model.get_input_embeddings().weight += 0.1 * torch.randn(width)
    return model


def save_tiny(
    folder: Path, tokenizer: PreTrainedTokenizerFast, *, tied: bool = True, extra_rows: int = 0, **options: object
) -> Path:
    """A checkpoint folder with `extra_rows` more rows than tokens."""
    tiny_model(len(tokenizer) + extra_rows, tied=tied, **options).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
