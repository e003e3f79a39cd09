"""Wall time and peak memory of a transplant by stage, beside a plain program that does the same method token by token.

    python scripts/bench_transplant.py --cases pocket smollm2 big --json bench.json

The plain program does what TokenAdapt's published code does: it loads the whole model, asks for the neighbours of one
token at a time, makes one row at a time in a Python loop, and saves the whole model. Both sides have the vectors of all
strings at hand. Its loop runs over --plain-tokens tokens and is extrapolated; what it would save is timed in full.

The floor is what no program can avoid: writing the new tables to disk, and one exact search for all neighbours.

Cases: `pocket` to a target of its own; `smollm2` to `qwen3`; `big` and `big-one-file`, a random checkpoint of 3B shape
(V 128,256, D 3,072, 28 layers, bfloat16) to `gpt4o`. Real ones are folders of $TOKENADAPT_BENCH.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

HOME = Path(os.environ.get("TOKENADAPT_BENCH", Path.home() / ".cache" / "tokenadapt-bench"))
METHOD = "hybrid:tau=0.3,k=3,g=0.3"


@dataclass(frozen=True)
class Run:
    """One process: seconds, peak resident bytes, and what it printed."""

    seconds: float
    peak: int
    printed: str


def run(command: list[str]) -> Run:
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=printed, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)  # this child's own peak
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}\n{errors.read()[-2000:]}")
        return Run(seconds, usage.ru_maxrss * 1024, printed.read())


def ours(model: str, target: str, out: Path, space: str, level: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tokenadapt", "-q", "transplant", model, target, str(out), "--json"]
    done = run([*command, "--overwrite", "--method", METHOD, "--space", space, "--verify", level])
    report = json.loads(done.printed)
    return {"wall": done.seconds, "peak": done.peak, "stages": report["stages"], "counts": report["overlap"]["counts"]}


def plain(model: str, target: str, out: Path, space: str, tokens: int) -> dict[str, Any]:
    """In a process of its own, so that its memory is measured alone."""
    done = run([sys.executable, __file__, "--plain", model, target, str(out), space, str(tokens)])
    return {"wall_of_process": done.seconds, "peak": done.peak, **json.loads(done.printed.splitlines()[-1])}


def plain_program(model: str, target: str, out: str, space: str, tokens: int) -> None:
    """The method of the published code, a token at a time; vectors are taken from the same space, before the clock."""
    import faiss
    from transformers import AutoModelForCausalLM

    from tokenadapt.choice import Choice, choose
    from tokenadapt.making import Job, open_job_space, source_model
    from tokenadapt.overlap import measure_overlap
    from tokenadapt.progress import SILENT
    from tokenadapt.recipe import TransplantOptions
    from tokenadapt.setting import prepare

    options = TransplantOptions(model, target, out, method=METHOD, space=space)
    setting = prepare(options)
    choice: Choice = choose(options, setting.roles)
    found = open_job_space(
        Job(setting, options, choice, measure_overlap(setting)), source_model(setting, options), SILENT
    )
    old = found.source(np.arange(setting.checkpoint.rows))
    new = found.missing(np.arange(len(setting.alignment.missing)))

    began = time.perf_counter()
    loaded = AutoModelForCausalLM.from_pretrained(setting.checkpoint.folder, dtype=torch.float32)
    table = loaded.get_input_embeddings().weight.detach().clone()
    index = faiss.IndexFlatIP(old.shape[1])
    index.add(old)
    load = time.perf_counter() - began

    began = time.perf_counter()
    cut, missing = setting.segmentation, setting.alignment.missing
    made = torch.empty(setting.rows, table.shape[1])
    sample = np.linspace(0, len(missing) - 1, min(tokens, len(missing))).astype(int)
    for at in sample.tolist():
        pieces = cut.piece[cut.start[at] : cut.start[at + 1]].tolist()
        lengths = torch.tensor(cut.length[cut.start[at] : cut.start[at + 1]] / max(1, cut.token_length[at]))
        cosines = torch.tensor([float(old[piece] @ new[at]) for piece in pieces])
        weights = torch.softmax((torch.softmax(cosines, 0) + lengths) / 2 / 0.3, 0)
        local = sum(weight * table[piece] for weight, piece in zip(weights, pieces, strict=True))
        near, ids = index.search(new[at : at + 1], 3)
        shares = torch.softmax(torch.tensor(near[0]) / 0.3, 0)
        wide = sum(share * table[old_id] for share, old_id in zip(shares, ids[0].tolist(), strict=True))
        made[missing[at]] = 0.7 * local + 0.3 * wide
    loop = (time.perf_counter() - began) * len(missing) / max(1, len(sample))

    began = time.perf_counter()
    loaded.resize_token_embeddings(setting.rows, mean_resizing=False)
    loaded.get_input_embeddings().weight.data.copy_(made)
    loaded.tie_weights()
    loaded.save_pretrained(out)
    save = time.perf_counter() - began
    shutil.rmtree(out)
    print(json.dumps({"load": load, "loop": loop, "save": save, "wall": load + loop + save, "sampled": len(sample)}))


def floor(model: str, target: str, space: str, folder: Path) -> dict[str, float]:
    """Writing tables of the same size, and one exact search over all candidates."""
    import faiss

    from tokenadapt.choice import choose
    from tokenadapt.making import Job, open_job_space, source_model
    from tokenadapt.overlap import measure_overlap
    from tokenadapt.progress import SILENT
    from tokenadapt.recipe import TransplantOptions
    from tokenadapt.setting import prepare

    options = TransplantOptions(model, target, str(folder), method=METHOD, space=space)
    setting = prepare(options)
    job = Job(setting, options, choose(options, setting.roles), measure_overlap(setting))
    found = open_job_space(job, source_model(setting, options), SILENT)
    old = found.source(found.candidates.ids)
    new = found.missing(np.arange(len(setting.alignment.missing)))
    began = time.perf_counter()
    index = faiss.IndexFlatIP(old.shape[1])
    index.add(old)
    for first in range(0, len(new), 8192):
        index.search(new[first : first + 8192], 3)
    search = time.perf_counter() - began
    dtype = setting.checkpoint.table("input").dtype
    block = bytes(8192 * setting.checkpoint.width * dtype.itemsize)
    total = len(setting.roles) * setting.rows * setting.checkpoint.width * dtype.itemsize
    began = time.perf_counter()
    with (folder / "floor").open("wb") as file:
        for _ in range(total // len(block)):
            file.write(block)
        file.write(block[: total % len(block)])
        os.fsync(file.fileno())
    write = time.perf_counter() - began
    (folder / "floor").unlink()
    return {"search": search, "write": write, "bytes": float(total)}


def big_checkpoint(folder: Path, sharded: bool) -> Path:
    """A random checkpoint of 3B shape with llama3's tokenizer: real tables, layers of zeros in sparse files."""
    from tokenadapt.checkpoint.shards import make_header

    rows, width, inner, layers, kv = 128_256, 3072, 8192, 28, 1024
    folder.mkdir()
    shutil.copytree(HOME / "llama3", folder, dirs_exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": rows, "hidden_size": width,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": 24, "num_key_value_heads": 8,
        "head_dim": 128, "max_position_embeddings": 8192, "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
        "bos_token_id": 128000, "eos_token_id": 128001, "torch_dtype": "bfloat16", "hidden_act": "silu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    tensors: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (rows, width))]
    for layer in range(layers):
        at = f"model.layers.{layer}."
        tensors += [(at + f"self_attn.{name}_proj.weight", (width if name in "qo" else kv, width)) for name in "qkvo"]
        tensors += [(at + f"mlp.{name}_proj.weight", (inner, width)) for name in ("gate", "up")]
        tensors += [(at + "mlp.down_proj.weight", (width, inner))]
        tensors += [(at + f"{name}_layernorm.weight", (width,)) for name in ("input", "post_attention")]
    tensors.append(("model.norm.weight", (width,)))
    parts = [tensors[:1], tensors[1 : len(tensors) // 2], tensors[len(tensors) // 2 :]] if sharded else [tensors]
    where = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors" if sharded else "model.safetensors"
        where |= {tensor: name for tensor, _ in part}
        sizes = [(tensor, "BF16", shape, 2 * int(np.prod(shape))) for tensor, shape in part]
        with (folder / name).open("wb") as file:
            file.write(make_header(sizes, {"format": "pt"}))
            for tensor, shape in part:
                if tensor == "model.embed_tokens.weight":
                    write_random(file, shape)
                else:
                    file.seek(2 * int(np.prod(shape)), os.SEEK_CUR)
            file.truncate()
    if sharded:
        total = sum(2 * int(np.prod(shape)) for _, shape in tensors)
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_random(file: Any, shape: tuple[int, ...]) -> None:
    drawn = torch.Generator().manual_seed(0)
    for first in range(0, shape[0], 8192):
        rows = torch.randn(min(8192, shape[0] - first), shape[1], generator=drawn).mul_(0.02).to(torch.bfloat16)
        file.write(rows.view(torch.int16).numpy().tobytes())


def cases(names: list[str], work: Path) -> list[tuple[str, str, str, str, str]]:
    """(name, model, target, space, level of the checks)."""
    found = []
    static = f"static:{HOME / 'wordllama'}"
    for name in names:
        if name == "pocket":
            target = work / "target"
            files = sorted(map(str, (Path(json.__file__).parents[1] / "asyncio").glob("*.py")))
            train = [sys.executable, "-m", "tokenadapt", "-q", "train-tokenizer", *files]
            run([*train, "--vocab-size", "4000", "-o", str(target), "--on-error", "skip"])
            found.append((name, "pocket", str(target), "self", "files"))
        elif name == "smollm2":
            found.append((name, str(HOME / "smollm2"), str(HOME / "qwen3"), static, "files"))
        else:
            folder = big_checkpoint(work / name, sharded=name == "big")
            found.append((name, str(folder), str(HOME / "gpt4o" / "tokenizer.json"), static, "tables"))
    return found


def show(name: str, entry: dict[str, Any]) -> None:
    mine, base = entry["ours"], entry["floor"]
    stages = "  ".join(f"{stage} {seconds:.1f} s" for stage, seconds in mine["stages"].items())
    core, least = mine["stages"]["make rows"] + mine["stages"]["write"], base["search"] + base["write"]
    print(f"{name}: ours {mine['wall']:.1f} s, peak {mine['peak'] / 1e9:.2f} GB; {stages}")
    print(f"  floor: write {base['write']:.1f} s + search {base['search']:.1f} s = {least:.1f} s")
    print(f"  make rows + write: {core:.1f} s = {core / least:.2f} x floor; in all {mine['wall'] / least:.2f} x floor")
    if "plain" not in entry:
        return
    other = entry["plain"]
    parts = f"load {other['load']:.1f}, loop {other['loop']:.1f} (from {other['sampled']} tokens)"
    print(f"  plain: {other['wall']:.1f} s ({parts}, save {other['save']:.1f}), peak {other['peak'] / 1e9:.2f} GB")
    faster = other["wall"] / mine["wall"]
    print(
        f"  ours is {faster:.1f} x as fast in all, {other['loop'] / mine['stages']['make rows']:.0f} x in making rows"
    )


def main() -> None:
    if sys.argv[1:2] == ["--plain"]:
        model, target, out, space, tokens = sys.argv[2:]
        plain_program(model, target, out, space, int(tokens))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["pocket", "smollm2", "big", "big-one-file"])
    parser.add_argument("--plain-tokens", type=int, default=2000)
    parser.add_argument("--no-plain", nargs="*", default=["big", "big-one-file"], help="cases without it")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path, help="where checkpoints are written  [default: a temporary folder]")
    args = parser.parse_args()
    kept: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=args.work) as temporary:
        work = Path(temporary)
        for name, model, target, space, level in cases(args.cases, work):
            ours(model, target, work / f"{name}-out", space, level)  # vectors and file caches are warm on both sides
            entry: dict[str, Any] = {"ours": ours(model, target, work / f"{name}-out", space, level)}
            shutil.rmtree(work / f"{name}-out")
            entry["floor"] = floor(model, target, space, work)
            if name not in args.no_plain:
                entry["plain"] = plain(model, target, work / f"{name}-plain", space, args.plain_tokens)
            kept[name] = entry
            show(name, entry)
            if args.json:
                args.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
