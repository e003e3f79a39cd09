"""What a transplant would take: overlap, memory, disk and time, without reading a weight."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from tokenadapt.atomic import check_destination
from tokenadapt.checkpoint.verify.running import bytes_in_memory
from tokenadapt.choice import Choice, choose
from tokenadapt.methods.work import Sizes, Work, work_of
from tokenadapt.model import device_of
from tokenadapt.needs import check_needs
from tokenadapt.overlap import Overlap, measure_overlap
from tokenadapt.plan import BLOCK_NUMBERS
from tokenadapt.progress import SILENT, Progress
from tokenadapt.recipe import TransplantOptions
from tokenadapt.setting import Setting, prepare
from tokenadapt.threads import MOST

# Orders of magnitude on two server cores; scripts/bench_transplant.py prints what a machine really does.
_WRITE_RATE = 300e6  # bytes of table a second: mixed, hashed, synced
_MIX_RATE = 400e6  # multiply-adds a second when rows are mixed
_SEARCH_RATE = 30e9  # multiply-adds a second in the exact search
_ENCODE_RATE = 350.0  # strings a second through a small encoder on CPU
_RUN_RATE = 25e9  # multiply-adds a second and core when the model is run or output rows are fitted
_START = 8.0  # seconds to import and to read tokenizers
_BASE_MEMORY = 700e6  # the libraries themselves


@dataclass(frozen=True)
class Estimate:
    """What `--dry-run` shows. Bytes and seconds; the seconds are an order of magnitude."""

    overlap: Overlap
    template: str
    notes: tuple[str, ...]
    old_table_bytes: int
    new_table_bytes: int
    disk_bytes: int
    memory_bytes: int
    seconds: float


def estimate(options: TransplantOptions, progress: Progress = SILENT) -> Estimate:
    """Open the inputs and count; nothing is written. Refuses what the run would refuse at its beginning."""
    check_needs(choose(options, ("input", "output")), options)
    output = Path(options.output)
    check_destination(output, overwrite=options.overwrite)
    setting = prepare(options, progress)
    check_destination(output, overwrite=options.overwrite, inputs=setting.inputs)
    choice = choose(options, setting.roles)
    overlap = measure_overlap(setting)
    work = _work(setting, choice, overlap)
    checkpoint = setting.checkpoint
    width = checkpoint.width
    old_dtype = checkpoint.table("input").dtype
    new_dtype = getattr(torch, options.dtype) if options.dtype else old_dtype
    new = len(setting.roles) * setting.rows * width * new_dtype.itemsize
    old = len(checkpoint.tables) * checkpoint.rows * width * old_dtype.itemsize
    shards = {ref.shard for ref in checkpoint.tables.values()}
    beside = sum(shard.path.stat().st_size for shard in checkpoint.shards if options.copy or shard.name in shards)
    return Estimate(
        overlap=overlap,
        template=setting.template.reason,
        notes=(*setting.notes, *_notes(options, work)),
        old_table_bytes=old,
        new_table_bytes=new,
        disk_bytes=new + max(0, beside - old),
        memory_bytes=_memory(setting, choice, overlap, work),
        seconds=_seconds(setting, options, choice, overlap, new) + _run_seconds(setting, work),
    )


def _work(setting: Setting, choice: Choice, overlap: Overlap) -> Work:
    sizes = Sizes(overlap.source_rows, overlap.target_rows, overlap.counts["missing"], setting.checkpoint.width)
    return work_of((*choice.methods.values(), choice.fallback), sizes)


def _memory(setting: Setting, choice: Choice, overlap: Overlap, work: Work) -> int:
    """Blocks in float32, plans, the vectors of a space where one is searched, a model that is run and what it says."""
    blocks = 8 * BLOCK_NUMBERS * 4
    plans = 24 * (overlap.pieces + overlap.target_rows) * len(setting.roles)
    vectors = 4 * (overlap.source_rows + overlap.counts["missing"]) * 768 if choice.needs_space else 0
    model = bytes_in_memory(setting.checkpoint, torch.float32) + 4 * work.numbers if work.layers else 0
    return int(_BASE_MEMORY + blocks + plans + vectors + model)


def _notes(options: TransplantOptions, work: Work) -> tuple[str, ...]:
    if not work.layers or device_of(options.device or "auto").type == "cpu":
        return ()
    return ("the time is that of a CPU; a GPU runs the source model far faster.",)


def _run_seconds(setting: Setting, work: Work) -> float:
    """Of running the source model on this machine's CPU, and of fitting rows to what it says."""
    checkpoint = setting.checkpoint
    tables = len(checkpoint.tables) * checkpoint.rows * checkpoint.width
    layers = bytes_in_memory(checkpoint, torch.float32) / torch.float32.itemsize - tables
    products = work.layers * layers + work.logits * checkpoint.width
    return products / (_RUN_RATE * min(MOST, torch.get_num_threads()))


def _seconds(setting: Setting, options: TransplantOptions, choice: Choice, overlap: Overlap, new_bytes: int) -> float:
    width = setting.checkpoint.width
    total = _START + new_bytes / _WRITE_RATE + len(setting.roles) * overlap.pieces * width / _MIX_RATE
    if choice.needs_space:
        total += overlap.source_rows * overlap.counts["missing"] * width / _SEARCH_RATE
        if options.space.startswith(("hf:", "st:")):
            total += (overlap.source_rows + overlap.counts["missing"]) / _ENCODE_RATE
    return total
