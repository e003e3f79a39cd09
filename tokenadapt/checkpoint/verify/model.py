"""The level `full`: what transformers loads, and what the loaded model says."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from tokenizers import Tokenizer

from tokenadapt.checkpoint.verify.probes import Alike, alike_probe, texts_probe
from tokenadapt.checkpoint.verify.report import Check, judge, passed, skipped, some
from tokenadapt.checkpoint.verify.running import Running, bytes_in_memory, free_memory, load
from tokenadapt.checkpoint.verify.subject import Subject
from tokenadapt.progress import SILENT, Progress

UNUSED_SHARE: Final = 1e-4  # of the probability, all unused ids together, mean over positions
TOLERANCE: Final = 1e-5  # of the largest logit at a position


def why_not(subject: Subject) -> str:
    """Why the model is not run: a line; empty where it can be."""
    needed, free = bytes_in_memory(subject.checkpoint, torch.float32), free_memory()
    if needed <= free // 2:
        return ""
    return f"the model takes {needed / 2**30:.1f} GiB in float32, half of the free memory is {free / 2**31:.1f} GiB"


def model_checks(subject: Subject, *, trust_remote_code: bool = False, progress: Progress = SILENT) -> Iterator[Check]:
    """Load the folder once, run two short sequences, and compare with the source where it is at hand."""
    with progress.stage("verify: load and run the model"):
        try:
            running = load(subject.checkpoint, dtype=torch.float32, trust_remote_code=trust_remote_code)
        except Exception as error:  # whatever a loader raises is the finding
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            yield judge("loads with transformers", [first[:300]])
            return
        yield from _loading(subject, running)
        ids = texts_probe(subject.tokenizer, subject.checkpoint.positions)
        logits = running.logits(ids)
        yield _finite(logits)
        yield _unused(subject, logits)
        yield _winners(subject, logits)
        alike = _alike(subject)
        ours = running.logits(alike.new) if alike is not None and alike.new else None
        del running, logits
        gc.collect()
    yield _same_logits(subject, alike, ours, trust_remote_code, progress)


def _loading(subject: Subject, running: Running) -> Iterator[Check]:
    """Missing, unexpected and mismatched keys. What the source lacked or had too is told, and is no fault of ours."""
    inherited = {tensor.name for tensor in subject.manifest.tensors if not tensor.new} if subject.manifest else set()
    ours = set(subject.manifest.tables.values()) if subject.manifest else set()
    ours |= {tensor.name for tensor in subject.manifest.tensors if tensor.new} if subject.manifest else set()
    missing, unexpected = running.loading["missing_keys"], running.loading["unexpected_keys"]
    wrong = [f"{name} is missing" for name in missing if not inherited or _is_one_of(name, ours)]
    wrong += [f"{name} is unexpected" for name in unexpected if name not in inherited]
    wrong += [f"{name} has another shape" for name in running.loading["mismatched_keys"]]
    wrong += list(running.loading["error_msgs"])
    yield judge("loads with transformers", wrong, "no missing or unexpected key")
    told = [f"{name} is missing, as in the source" for name in missing if inherited and not _is_one_of(name, ours)]
    told += [f"{name} is not used, as in the source" for name in unexpected if name in inherited]
    if told:
        yield judge("keys as in the source", told, verdict="warning")


def _is_one_of(name: str, tensors: set[str]) -> bool:
    """Loaders spell names with or without a prefix."""
    return any(name == other or name.endswith("." + other) or other.endswith("." + name) for other in tensors)


def _finite(logits: torch.Tensor) -> Check:
    bad = int((~torch.isfinite(logits)).any(1).sum())
    problems = [f"{bad} of {len(logits)} positions have logits that are not finite"] if bad else []
    return judge("forward pass", problems, f"{len(logits)} positions")


def _unused(subject: Subject, logits: torch.Tensor) -> Check:
    """The probability of ids that no text reaches."""
    name = "unused ids"
    if subject.alignment is None:
        return skipped(name, "there is no transplant.plan that says which ids are unused")
    if not len(subject.unused):
        return passed(name, "none")
    each = torch.softmax(logits, 1)[:, torch.from_numpy(subject.unused)]  # (T, U)
    share, most = float(each.sum(1).mean()), float(each.sum(1).max())
    worst = subject.unused[np.argsort(-each.mean(0).numpy(), kind="stable")]
    problems = [f"they get {share:.2g} of the probability, first of all ids {some(worst)}"]
    figure = f"{len(worst):,} ids, {share:.1e} of the probability ({most:.1e} at most)"
    return judge(name, problems if not share <= UNUSED_SHARE else [], figure)


def _winners(subject: Subject, logits: torch.Tensor) -> Check:
    """Made rows that win whatever was said: their mean logit is above that of every copied token.

    A row that was planted to break a model (arXiv 2601.00065) looks harmless where it was made and wins here.
    """
    name = "rows that always win"
    if not len(subject.missing) or not len(subject.taken):
        return passed(name, "nothing to compare")
    mean = (logits - logits.mean(1, keepdim=True)).mean(0).numpy()  # (V,)
    high, low = float(mean[subject.taken].max()), float(np.median(mean[subject.taken]))
    over = subject.missing[mean[subject.missing] > high]
    made = float(mean[subject.missing].max())
    problems = [f"{len(over)} made rows have a mean logit above every copied token's (ids {some(over)})"]
    figure = f"highest mean logit {made - low:.1f} above the median, {high - low:.1f} copied"
    return judge(name, problems if len(over) else [], figure, "warning")


def _alike(subject: Subject) -> Alike | None:
    if subject.source is None or subject.alignment is None:
        return None
    file = subject.source.folder / "tokenizer.json"
    old = Tokenizer.from_file(str(file)) if file.is_file() else None
    positions = [one for one in (subject.checkpoint.positions, subject.source.positions) if one]
    return alike_probe(subject, old, min(positions) if positions else None)


def _same_logits(
    subject: Subject, alike: Alike | None, ours: torch.Tensor | None, trust_remote_code: bool, progress: Progress
) -> Check:
    """Logits of copied tokens are the source's, on ids that mean the same."""
    name = "logits of copied tokens"
    if subject.source is None or subject.alignment is None or alike is None:
        return skipped(name, "compared with the source only where it is given: --source")
    if subject.manifest is not None and subject.manifest.layers_trained:
        return skipped(name, "the layers were trained after the transplant")
    if not alike.new or ours is None:
        return skipped(name, "no token was copied")
    if subject.source.table("input").dtype != subject.checkpoint.table("input").dtype:
        return skipped(name, "the tables were written in another storage type")
    with progress.stage("verify: run the source on the same text"):
        try:
            theirs = load(subject.source, dtype=torch.float32, trust_remote_code=trust_remote_code).logits(alike.old)
        except Exception as error:  # the source is not the subject: then there is nothing to compare with
            return skipped(name, f"the source does not run here ({type(error).__name__}: {str(error)[:100]})")
    taken = subject.taken
    old, new = theirs[:, torch.from_numpy(subject.alignment.source_id[taken])], ours[:, torch.from_numpy(taken)]
    scale = theirs.abs().amax(1, keepdim=True).clamp(min=1e-6)
    apart = ((old - new).abs() / scale).amax(1)  # (T,)
    worst = float(apart.max())
    what = "text" if alike.from_text else "copied ids"
    problems = [f"they differ from the source's by up to {worst:.1e} of the largest logit"]
    figure = f"{worst:.1e} apart on {len(alike.new)} tokens of {what}"
    return judge(name, problems if not worst <= TOLERANCE else [], figure)
