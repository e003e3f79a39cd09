"""Train `pocket`, the model inside the package: a Llama of 3.4 million parameters on the Python standard library.

    python scripts/train_pocket.py --measure                  # tokens a second, float32 beside bfloat16
    python scripts/train_pocket.py --output tokenadapt/pocket  # the model that ships

Deterministic for one machine and one Python version: seed, order of windows and held-out files are fixed. The figures
of the shipped model (machine, time, held-out bits per byte) stand in `training.json` beside its weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from pocket_text import ASSISTANT, BOS, CHAT_TEMPLATE, END, EOS, PAD, SPECIAL, USER, Texts, standard_library
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY, WINDOW, BATCH = 4096, 512, 8
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Texts) -> Tokenizer:
    """Byte-level BPE; digits one by one; `<|bos|>` before every text."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    plain = (text for text in texts.train if not text.startswith(USER))
    tokenizer.train_from_iterator(plain, trainer)
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bos)]
    )
    return tokenizer


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers saves and loads it."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=WINDOW,
        additional_special_tokens=[USER, ASSISTANT, END], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = CHAT_TEMPLATE
    return fast


def new_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    """A tied Llama; matrices normal with deviation 1/sqrt(fan in), so that Muon starts from an even spectrum."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=192, intermediate_size=512, num_hidden_layers=6, num_attention_heads=3,
        num_key_value_heads=3, max_position_embeddings=WINDOW, tie_word_embeddings=True, initializer_range=0.04,
        bos_token_id=tokenizer.token_to_id(BOS), eos_token_id=tokenizer.token_to_id(EOS),
        pad_token_id=tokenizer.token_to_id(PAD), attn_implementation="eager",  # compiled, faster than sdpa here
    )  # fmt: skip
    return LlamaForCausalLM(config)


def windows(tokenizer: Tokenizer, documents: tuple[str, ...]) -> torch.Tensor:
    """All documents, an end marker after each, cut into rows of `<|bos|>` and WINDOW - 1 tokens: (N, WINDOW) int16."""
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    stream: list[int] = []
    for encoding in tokenizer.encode_batch(list(documents), add_special_tokens=False):
        stream += [*encoding.ids, eos]
    rows = torch.tensor(stream[: len(stream) // (WINDOW - 1) * (WINDOW - 1)], dtype=torch.int16)
    rows = rows.view(-1, WINDOW - 1)
    return torch.cat([torch.full((len(rows), 1), bos, dtype=torch.int16), rows], dim=1)


def loss_of(model: Any, ids: torch.Tensor, half: bool) -> torch.Tensor:
    """Mean negative log-likelihood in nats of every token after the first."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


@torch.inference_mode()
def bits_per_byte(model: Any, tokenizer: Tokenizer, documents: tuple[str, ...], half: bool) -> float:
    """Held-out documents in windows that each start afresh: all nats over all bytes, end markers not counted."""
    bos, pad = tokenizer.token_to_id(BOS), tokenizer.token_to_id(PAD)
    nats, rows = 0.0, []
    for encoding in tokenizer.encode_batch(list(documents), add_special_tokens=False):
        for at in range(0, len(encoding.ids), WINDOW - 1):
            row = [bos, *encoding.ids[at : at + WINDOW - 1]]
            rows.append(row + [pad] * (WINDOW - len(row)))
    ids = torch.tensor(rows)
    for batch in ids.split(BATCH):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits.float()
        targets = batch[:, 1:].flatten()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, ignore_index=pad, reduction="sum")
        nats += float(loss)
    return nats / math.log(2) / sum(len(text.encode()) for text in documents)


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the table and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=6e-3, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0)]


def rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: short warm-up, level, then linearly to zero over the last 40 in a hundred.

    In the level part a run does not depend on its length: a state saved there can be finished with any `--steps`.
    """
    return min(1.0, (step + 1) / 60, (steps - step) / (0.4 * steps))


def shuffled(count: int, wanted: int, seed: int) -> torch.Tensor:
    """Indices of rows, epoch after epoch, each in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randperm(count, generator=generator) for _ in range(-(-wanted // count))])


def fit(model: LlamaForCausalLM, rows: torch.Tensor, options: argparse.Namespace) -> float:
    """Train in place on `rows`; returns the seconds it took, those before a resumed state included."""
    chosen = optimizers(model)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in chosen]
    start, before = resume(options.state, model, chosen)
    loss_function = torch.compile(loss_of) if options.compile else loss_of
    order = shuffled(len(rows), options.steps * BATCH, options.seed)
    began, mean = time.perf_counter() - before, 0.0
    for step in range(start, options.steps):
        for optimizer, peak in zip(chosen, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate(step, options.steps)
        loss = loss_function(model, rows[order[step * BATCH : (step + 1) * BATCH]].long(), options.half)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in chosen:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        mean += (loss.item() - mean) / min(step - start + 1, 50)
        if step % 50 == 49 or step + 1 == options.steps:
            spent = time.perf_counter() - began
            print(f"step {step + 1}/{options.steps}  loss {mean:.3f} nats  {spent:.0f} s", flush=True)
            if options.state and rate(step, options.steps) == 1.0:
                optimizer_states = [optimizer.state_dict() for optimizer in chosen]
                kept = {"model": model.state_dict(), "optimizers": optimizer_states, "step": step + 1, "seconds": spent}
                torch.save(kept, options.state)
    return time.perf_counter() - began


def resume(state: Path | None, model: LlamaForCausalLM, chosen: list[torch.optim.Optimizer]) -> tuple[int, float]:
    """Load a saved state where there is one; the steps done and the seconds they took."""
    if state is None or not state.exists():
        return 0, 0.0
    kept = torch.load(state, weights_only=True)
    model.load_state_dict(kept["model"])
    for optimizer, saved in zip(chosen, kept["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    print(f"resumed after step {kept['step']}", flush=True)
    return int(kept["step"]), float(kept["seconds"])


def measure(tokenizer: Tokenizer, rows: torch.Tensor, options: argparse.Namespace) -> None:
    """Print the speed of the fastest of fifteen steps (others may use the machine) in both number formats."""
    for half in (False, True):
        torch._dynamo.reset()
        model = new_model(tokenizer)
        chosen = optimizers(model)
        loss_function = torch.compile(loss_of) if options.compile else loss_of
        spent = []
        for step in range(15):
            began = time.perf_counter()
            loss_function(model, rows[step * BATCH : (step + 1) * BATCH].long(), half).backward()
            for optimizer in chosen:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            spent.append(time.perf_counter() - began)
        speed = BATCH * WINDOW / min(spent)
        print(f"{'bfloat16' if half else 'float32'}: {speed:,.0f} tokens/s", flush=True)


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, record: dict[str, Any], output: Path) -> None:
    """The folder that transformers loads, weights in bfloat16, and what was measured."""
    end = tokenizer.token_to_id(END)
    eos, bos, pad = model.config.eos_token_id, model.config.bos_token_id, model.config.pad_token_id
    model.generation_config = GenerationConfig(bos_token_id=bos, eos_token_id=[eos, end], pad_token_id=pad)
    model.to(torch.bfloat16).save_pretrained(output)
    wrapped(tokenizer).save_pretrained(output)
    describe_tokenizer(output / "tokenizer_config.json")
    (output / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def describe_tokenizer(path: Path) -> None:
    """Say what every version of transformers since 4.56 reads: the class that trusts tokenizer.json, and old names."""
    described = json.loads(path.read_text(encoding="utf-8"))
    described.pop("backend", None)
    described.pop("extra_special_tokens", None)
    described |= {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": [USER, ASSISTANT, END]}
    path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("tokenadapt/pocket"))
    parser.add_argument("--steps", type=int, default=750, help=f"steps of {BATCH} windows of {WINDOW} tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float32", dest="half", action="store_false", help="no bfloat16 autocast")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="where there is no C++ compiler")
    parser.add_argument("--state", type=Path, help="file to keep the state of the level part in, and to resume from")
    parser.add_argument("--measure", action="store_true", help="print the speed of both number formats and stop")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    texts = standard_library()
    tokenizer = train_tokenizer(texts)
    rows = windows(tokenizer, texts.train)
    print(f"{rows.numel():,} tokens to learn from, {len(texts.held_out)} documents held out", flush=True)
    if options.measure:
        measure(tokenizer, rows, options)
        return
    model = new_model(tokenizer)
    seconds = fit(model, rows, options)
    model.eval()
    figure = bits_per_byte(model.to(torch.bfloat16).float(), tokenizer, texts.held_out, half=False)
    record = {
        "held_out_bits_per_byte": round(figure, 4),
        "held_out_bytes": sum(len(text.encode()) for text in texts.held_out),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_seen": options.steps * BATCH * WINDOW,
        "tokens_distinct": rows.numel(),
        "steps": options.steps,
        "seed": options.seed,
        "seconds": round(seconds),
        "arithmetic": "bfloat16 autocast" if options.half else "float32",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    save(model, tokenizer, record, options.output)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
