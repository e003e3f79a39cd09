"""A helper model that has the target tokenizer, for methods that read its tables: `--donor`."""

from __future__ import annotations

from dataclasses import dataclass

from tokenadapt.checkpoint.source import SourceCheckpoint, open_source
from tokenadapt.checkpoint.tables import check_finite
from tokenadapt.locate import locate
from tokenadapt.plan import Role, Table
from tokenadapt.progress import SILENT, Progress
from tokenadapt.recipe import TransplantOptions
from tokenadapt.vocab import byte_vocab, load_tokenizer
from tokenadapt.vocab.types import ByteVocab


@dataclass(frozen=True)
class DonorModel:
    """`tokenadapt.plan.Donor` over a checkpoint folder; rows are read when a method asks for them."""

    checkpoint: SourceCheckpoint
    vocab: ByteVocab

    def table(self, role: Role) -> Table:
        """The donor's table of a role; a tied donor's table serves both."""
        return self.checkpoint.table(role)


def open_donor(options: TransplantOptions, progress: Progress = SILENT) -> DonorModel | None:
    """The donor that was asked for, or None; raises RequestError where it cannot be read or is not finite."""
    if options.donor is None:
        return None
    folder = locate(options.donor, "model")
    checkpoint = open_source(folder, trust_remote_code=options.trust_remote_code)
    for role, ref in checkpoint.tables.items():
        check_finite(checkpoint.table(role), f"{ref.name} of the donor", progress)
    tokenizer = load_tokenizer(str(folder), trust_remote_code=options.trust_remote_code)
    return DonorModel(checkpoint, byte_vocab(tokenizer))
