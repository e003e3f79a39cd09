"""Speed and memory of scoring, beside a plain loop and beside lm-evaluation-harness.

    python scripts/bench_eval.py --texts FOLDER_OF_TXT [--model FOLDER] [--rounds 3] [--save FIGURES.json]

All three score the same documents in the same disjoint windows behind a begin token, each in a process of its own,
in turn and after a short text to warm up; the best round of each counts, and the bits per byte of all three are
printed to show that they did the same work. On a machine that others use too, --clock cpu compares processor time of
one thread instead. Memory is the peak of the whole process, and how far that is above the loaded model. "short" are
lines under 200 bytes, "long" are files in windows of 8,192 tokens.
"""

from __future__ import annotations

import argparse
import atexit
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BENCH = Path(os.environ.get("TOKENADAPT_BENCH", Path.home() / ".cache" / "tokenadapt-bench"))
ENGINES = ("plain", "harness", "tokenadapt")
LONG = 24_000  # bytes of a long document
CONTEXT = {"short": 1024, "long": 8192}


def documents(folder: Path, kind: str, size: int) -> list[str]:
    """About `size` bytes: short lines spread over all files, or the beginnings of whole files, the last first."""
    files = sorted(folder.glob("*.txt"))
    share = max(1, size // len(files))
    found = []
    for file in files if kind == "short" else files[::-1][: max(1, size // LONG)]:
        text = file.read_text(encoding="utf-8")
        if kind == "long":
            found.append(text.encode()[:LONG].decode(errors="ignore"))
            continue
        taken = 0
        for line in text.splitlines():
            if line.strip() and len(line.encode()) < 200 and taken < share:
                found.append(line)
                taken += len(line.encode())
    return found


def plain(model: Any, tokenizer: Any, texts: list[str], context: int) -> float:
    """One document at a time, whole logits: what one writes first. Total bits."""
    import torch

    total = 0.0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0].to(model.device)
        begin = torch.tensor([tokenizer.bos_token_id], device=model.device)
        inputs = torch.cat([begin, ids[:-1]])
        for low in range(0, len(ids), context):
            high = min(low + context, len(ids))
            start = max(0, high - context)  # the last window reaches back, as the harness's does
            with torch.no_grad():
                logits = model(inputs[None, start:high]).logits[0, low - start :].float()
            logs = torch.log_softmax(logits, dim=-1)
            total -= logs.gather(1, ids[low:high, None]).sum().item() / math.log(2)
    return total


def harness(folder: Path, context: int, batch: int, device: str) -> Callable[[list[str]], float]:
    """lm-evaluation-harness's own rolling log-likelihood. Total bits."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(folder), device=device, dtype=dtype_of(device), max_length=context, batch_size=batch)

    def run(texts: list[str]) -> float:
        requests = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
        return -sum(model.loglikelihood_rolling(requests, disable_tqdm=True)) / math.log(2)

    return run


def ours(folder: Path, context: int, batch_tokens: int | None, device: str) -> Callable[[list[str]], float]:
    """Our own road. Total bits."""
    from tokenadapt.evaluation import EvalOptions, ScoreOptions, Scorer, score_encoded
    from tokenadapt.evaluation.load import load_subject

    options = ScoreOptions(windows="disjoint", context=context, bos="always", batch_tokens=batch_tokens)
    subject = load_subject(str(folder), EvalOptions(options, device=device))
    scorer = Scorer(subject.model)
    encoder = subject.encoder
    return lambda texts: float(score_encoded(scorer, encoder, encoder.encode(texts), options).bits.sum())


def shortened(folder: Path, layers: int) -> Path:
    """A copy of a model with its first layers only, in a temporary folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parent = Path(tempfile.mkdtemp(prefix="bench-eval-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    made = parent / f"{folder.name}-{layers}"
    AutoModelForCausalLM.from_pretrained(folder, num_hidden_layers=layers).save_pretrained(made)
    AutoTokenizer.from_pretrained(folder).save_pretrained(made)
    return made


def dtype_of(device: str) -> str:
    return "float32" if device == "cpu" else "bfloat16"


def work(arguments: argparse.Namespace) -> None:
    """Load, then time one engine; print a line of JSON."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(arguments.threads)
    texts, context = documents(arguments.texts, arguments.kind, arguments.bytes), CONTEXT[arguments.kind]
    folder, device = arguments.model, arguments.device
    if arguments.engine == "plain":
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype_of(device)).to(device).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        run: Callable[[list[str]], float] = lambda texts: plain(model, tokenizer, texts, context)  # noqa: E731
    elif arguments.engine == "harness":
        run = harness(folder, context, 32 if arguments.kind == "short" else 1, device)
    else:
        run = ours(folder, context, arguments.batch_tokens, device)
    run(texts[:1] if arguments.kind == "short" else ["ab"])
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB
    began, spent = time.perf_counter(), time.process_time()
    bits = run(texts)
    wall, processor = time.perf_counter() - began, time.process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB
    if device != "cpu":
        peak, loaded = torch.cuda.max_memory_allocated() / 2**20, torch.cuda.memory_allocated() / 2**20
    size = sum(len(text.encode()) for text in texts)
    found = {"documents": len(texts), "bytes": size, "wall": wall, "cpu": processor}
    found |= {"bits_per_byte": bits / size, "peak_mib": peak, "above_mib": peak - loaded}
    print(json.dumps(found))


def measured(arguments: argparse.Namespace, kind: str, engine: str) -> dict[str, float]:
    batch = ["--batch-tokens", str(arguments.batch_tokens)] if arguments.batch_tokens else []
    line = [
        sys.executable, __file__, "--texts", str(arguments.texts), "--model", str(arguments.model),
        "--device", arguments.device, "--bytes", str(arguments.bytes), "--kind", kind, "--engine", engine,
        "--threads", str(arguments.threads or (1 if arguments.clock == "cpu" else os.cpu_count())),
        *batch,
    ]  # fmt: skip
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=BENCH / "smollm2")
    parser.add_argument("--kind", choices=CONTEXT)
    parser.add_argument("--engine", choices=ENGINES)
    parser.add_argument("--bytes", type=int, default=6_500, help="text of each kind")
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, help="keep only the model's first layers: for slow machines")
    parser.add_argument("--threads", type=int, help="threads of each process; 1 with --clock cpu")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time, on a busy machine"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    if arguments.engine:
        return work(arguments)
    clock = arguments.clock
    if arguments.layers:
        arguments.model = shortened(arguments.model, arguments.layers)
    kinds = [arguments.kind] if arguments.kind else list(CONTEXT)
    results: dict[str, Any] = {}
    print(
        "| documents | engine | bytes/s | beside plain | peak MiB | above the model | bits/byte |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for kind in kinds:
        rounds = [{engine: measured(arguments, kind, engine) for engine in ENGINES} for _ in range(arguments.rounds)]
        best = {engine: min((one[engine] for one in rounds), key=lambda found: found[clock]) for engine in ENGINES}
        for engine, found in best.items():
            speed = found["bytes"] / found[clock]
            times = best["plain"][clock] / found[clock]
            cells = f"{speed:,.0f} | {times:.2f}x | {found['peak_mib']:,.0f} | {found['above_mib']:,.0f}"
            name = f"{kind} ({found['documents']} of {found['bytes'] / found['documents']:,.0f} bytes)"
            print(f"| {name} | {engine} | {cells} | {found['bits_per_byte']:.5f} |", flush=True)
        results[kind] = {"best": best, "rounds": rounds}
    if arguments.save:
        arguments.save.write_text(json.dumps(results, indent=2))
    return None


if __name__ == "__main__":
    main()
