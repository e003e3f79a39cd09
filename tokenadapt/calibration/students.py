"""Teacher and student made ready: one frozen body, two sets of tables, and the parameters that are trained."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from tokenadapt.calibration.body import Body, open_body
from tokenadapt.calibration.layers import Changes, Lora, Norms
from tokenadapt.calibration.options import CalibrationOptions
from tokenadapt.calibration.pair import Pair
from tokenadapt.calibration.speaker import Speaker
from tokenadapt.calibration.split import SplitTable
from tokenadapt.calibration.trained import Trained
from tokenadapt.plan import Role
from tokenadapt.progress import SILENT, Progress
from tokenadapt.vocab.types import Ids

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_GAIN = 1.2  # bfloat16 must be faster by so much to be taken on a CPU


@dataclass(frozen=True)
class Class:
    """Who takes part."""

    body: Body
    student: Speaker
    teacher: Speaker
    trained: Trained
    changes: Changes | None = None  # inside the layers


def open_class(
    pair: Pair, options: CalibrationOptions, dtype: torch.dtype, device: torch.device, progress: Progress = SILENT
) -> Class:
    """Load the layers once, and the rows of both vocabularies."""
    with progress.stage("load the layers and both tables"):
        body = open_body(pair.folder, dtype, device, trust_remote_code=options.trust_remote_code)
        student = Speaker(body, _tables(pair, pair.trained(options.train), dtype, student=True)).to(device)
        teacher = Speaker(body, _tables(pair, np.zeros(0, np.int64), dtype, student=False)).to(device)
    teacher.requires_grad_(False)
    changes = _changes(body, options)
    more = {} if changes is None else {f"layers.{name}": value for name, value in changes.parameters.items()}
    return Class(body, student, teacher, Trained(student, more, 1.0 if changes is None else changes.rate), changes)


def _changes(body: Body, options: CalibrationOptions) -> Changes | None:
    if options.train == "rows+norms":
        return Norms(body)
    return Lora(body, options.lora_rank, options.seed) if options.train.endswith("lora") else None


def _tables(pair: Pair, trained: Ids, dtype: torch.dtype, *, student: bool) -> dict[Role, SplitTable]:
    checkpoint = pair.checkpoint if student else pair.source
    bias = pair.bias(checkpoint)
    made: dict[Role, SplitTable] = {"output": SplitTable(checkpoint.table("output"), trained, dtype, bias)}
    if not checkpoint.tied:
        made["input"] = SplitTable(checkpoint.table("input"), trained, dtype)
    return made


def choose_dtype(options: CalibrationOptions, pair: Pair, device: torch.device) -> tuple[torch.dtype, str]:
    """The type that states and frozen rows have, and why: measured on a CPU, where it may be slow."""
    if options.train == "rows+norms":
        return torch.float32, "norms are trained"
    if options.dtype != "auto":
        return _DTYPES[options.dtype], "as asked"
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported()
        return (torch.bfloat16, "the GPU has it") if able else (torch.float32, "the GPU has no bfloat16")
    if device.type != "cpu":
        return torch.float32, "the device's usual type"
    full, half = (_seconds(dtype, pair.checkpoint.width) for dtype in (torch.float32, torch.bfloat16))
    found = f"float32 {1e3 * full:.1f} ms, bfloat16 {1e3 * half:.1f} ms for the same products here"
    return (torch.bfloat16 if half * _GAIN < full else torch.float32), found


def _seconds(dtype: torch.dtype, width: int) -> float:
    """The best of several runs of a layer-like product."""
    x, w = torch.ones(512, width, dtype=dtype), torch.ones(width, 4 * width, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        torch.mm(torch.mm(x, w), w.T)
        best = min(best, time.perf_counter() - began)
    return best
