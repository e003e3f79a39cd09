"""What is verified: an opened folder with its record, and the source where it is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from tokenadapt.checkpoint.manifest import FILE as MANIFEST
from tokenadapt.checkpoint.manifest import Manifest, read_manifest
from tokenadapt.checkpoint.saved_plan import FILE as PLAN
from tokenadapt.checkpoint.saved_plan import SavedPlan, load_plan
from tokenadapt.checkpoint.source import SourceCheckpoint, open_source
from tokenadapt.plan import Role
from tokenadapt.vocab.types import Alignment, How, Ids

TAKEN = (How.COPIED, How.SPECIAL, How.MAPPED)  # rows whose bits are the source's


@dataclass(frozen=True)
class Subject:
    """A checkpoint folder to be checked. Nothing is changed in it, nothing of it is trusted."""

    folder: Path
    checkpoint: SourceCheckpoint
    manifest: Manifest | None
    plan: SavedPlan | None
    source: SourceCheckpoint | None = None

    @property
    def alignment(self) -> Alignment | None:
        """Which row each id took, where a plan for tables of this height lies beside them."""
        fits = self.plan is not None and len(self.plan.alignment.how) == self.checkpoint.rows
        return self.plan.alignment if fits and self.plan else None

    @property
    def misfit(self) -> str:
        """Why the source that was named cannot be this folder's; empty where it can."""
        if self.source is None:
            return ""
        ours, theirs = self.checkpoint.width, self.source.width
        if ours != theirs:
            return f"its rows have {theirs} numbers, this folder's {ours}"
        top = int(self.alignment.source_id.max(initial=-1)) if self.alignment is not None else -1
        if top >= self.source.rows:
            return f"it has {self.source.rows} rows, and row {top} was taken from the source"
        return ""

    @property
    def roles(self) -> tuple[Role, ...]:
        """One role for a tied model: its one table."""
        return ("input",) if self.checkpoint.tied else ("input", "output")

    @cached_property
    def taken(self) -> Ids:
        """Ids whose rows are the source's."""
        return self._where(*TAKEN)

    @cached_property
    def missing(self) -> Ids:
        """Ids whose rows a method made."""
        return self._where(How.MISSING)

    @cached_property
    def unused(self) -> Ids:
        """Ids that no text reaches."""
        return self._where(How.UNUSED)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What `tokenizer.json` says."""
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def _where(self, *reasons: How) -> Ids:
        if self.alignment is None:
            return np.zeros(0, np.int64)
        return np.flatnonzero(np.isin(self.alignment.how, reasons))


def open_subject(folder: Path, source: Path | None = None, *, trust_remote_code: bool = False) -> Subject:
    """Open a folder to check it; raises RequestError where it cannot even be read."""
    return Subject(
        folder=folder,
        checkpoint=open_source(folder, trust_remote_code=trust_remote_code),
        manifest=read_manifest(folder) if (folder / MANIFEST).is_file() else None,
        plan=load_plan(folder) if (folder / PLAN).is_file() else None,
        source=open_source(source, trust_remote_code=trust_remote_code) if source else None,
    )
