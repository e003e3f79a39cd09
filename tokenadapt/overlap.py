"""What two vocabularies have in common, as figures and lines for people, manifests and cards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokenadapt.checkpoint.manifest import SpecialToken
from tokenadapt.setting import Setting
from tokenadapt.vocab.types import How, Kind


@dataclass(frozen=True)
class Overlap:
    """Counts over the target vocabulary."""

    source_tokens: int
    source_rows: int
    target_rows: int
    counts: dict[str, int]  # by reason; sums to target_rows
    spelled_alike: int
    pieces: int  # old pieces of all missing tokens
    unspellable: int  # missing tokens that no old tokens can spell
    unknown_bytes: int  # target tokens whose bytes cannot be told
    specials: tuple[SpecialToken, ...]

    @property
    def copied(self) -> int:
        """Rows taken from the source as they are."""
        return sum(self.counts[name] for name in ("copied", "special", "mapped", "adjusted"))

    @property
    def pieces_per_token(self) -> float:
        """Mean number of old pieces of a missing token."""
        return self.pieces / max(1, self.counts["missing"])


def measure_overlap(setting: Setting) -> Overlap:
    """The figures of a setting."""
    target = setting.target
    return Overlap(
        source_tokens=sum(text is not None for text in setting.source.text),
        source_rows=setting.checkpoint.rows,
        target_rows=setting.rows,
        counts=setting.alignment.counts(),
        spelled_alike=setting.alignment.spelled_alike,
        pieces=len(setting.segmentation.piece),
        unspellable=int((setting.segmentation.counts == 0).sum()),
        unknown_bytes=int((target.kind == Kind.UNKNOWN).sum()),
        specials=_specials(setting),
    )


def _specials(setting: Setting) -> tuple[SpecialToken, ...]:
    alignment, target, source = setting.alignment, setting.target, setting.source
    marked = np.isin(alignment.how, (How.SPECIAL, How.MAPPED))
    marked[: len(target)] |= target.kind == Kind.SPECIAL
    roles = {index: role for role, index in reversed(list(target.roles.items()))}
    listed = []
    for index in np.flatnonzero(marked).tolist():
        old = int(alignment.source_id[index])
        how = How(int(alignment.how[index]))
        why = {How.SPECIAL: roles.get(index, "same name"), How.MAPPED: "mapped by hand"}.get(how, "no counterpart")
        text = target.text[index] if index < len(target) else None
        old_text = source.text[old] if old >= 0 else None
        listed.append(SpecialToken(index, text or "", old if old >= 0 else None, old_text, why))
    return tuple(listed)
