"""A checkpoint loaded and run by transformers: which keys it misses, and what it says of given ids."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from tokenadapt.checkpoint.source import SourceCheckpoint

_AUTO: Final = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
}
_KEYS: Final = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


@dataclass(frozen=True)
class Running:
    """A loaded model, and what the loader had to say."""

    model: Any
    kind: str
    loading: Mapping[str, tuple[str, ...]]

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """Float32 logits at every position of one sequence: (T, V)."""
        given = torch.tensor([list(ids)], dtype=torch.long)
        inputs: dict[str, Any] = {"input_ids": given, "attention_mask": torch.ones_like(given)}
        if self.kind == "seq2seq":
            inputs["decoder_input_ids"] = given
        if self.kind == "causal":
            inputs["use_cache"] = False
        logits: torch.Tensor = self.model(**inputs).logits[0].float()
        return logits


def load(checkpoint: SourceCheckpoint, *, dtype: torch.dtype, trust_remote_code: bool = False) -> Running:
    """Load a folder on the CPU with transformers' own checks of keys; its exceptions are the caller's to judge."""
    import transformers

    with _quiet(transformers):
        model, info = _loader(transformers, checkpoint).from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            output_loading_info=True,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
        )
    loading = {key: tuple(_name(entry) for entry in info.get(key) or ()) for key in _KEYS}
    return Running(model.eval(), checkpoint.kind, loading)


def _loader(transformers: Any, checkpoint: SourceCheckpoint) -> Any:
    """The class that the configuration names (a multimodal model is no AutoModelForCausalLM), else the usual one."""
    own = getattr(transformers, checkpoint.architecture, None)
    return own if own is not None else getattr(transformers, _AUTO[checkpoint.kind])


def _name(entry: Any) -> str:
    return str(entry[0]) if isinstance(entry, (tuple, list)) else str(entry)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without bars and without warnings about what the loading information says anyway."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def bytes_in_memory(checkpoint: SourceCheckpoint, dtype: torch.dtype | None) -> int:
    """What the loaded model takes; None: as it is stored."""
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}
    total = 0
    for shard in checkpoint.shards:
        for ref in shard.tensors:
            factor = dtype.itemsize / sizes[ref.dtype] if dtype is not None and ref.dtype in sizes else 1.0
            total += int(ref.nbytes * factor)
    return total


def free_memory() -> int:
    """Bytes that a process may still take: of the machine, or of the control group where that allows less."""
    free = _available()
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        return min(free, max(0, int(limit) - used)) if limit.isdigit() else free
    except (OSError, ValueError):
        return free


def _available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:  # macOS: all of it, since what is free is not told without a tool
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 8 << 30
