"""What every road stands on: both sides opened, vocabularies read as bytes, aligned and cut. No weight is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenadapt.checkpoint.chat import Chosen as Template
from tokenadapt.checkpoint.chat import carry_chat, choose_template
from tokenadapt.checkpoint.source import SourceCheckpoint, open_source
from tokenadapt.errors import RequestError
from tokenadapt.locate import locate
from tokenadapt.plan import Role
from tokenadapt.progress import SILENT, Progress
from tokenadapt.recipe import TransplantOptions
from tokenadapt.vocab import align, byte_vocab, parse_maps, segment
from tokenadapt.vocab.load import LoadedTokenizer, load_tokenizer
from tokenadapt.vocab.types import Alignment, ByteVocab, Segmentation

_FITS = 0.9  # of a tokenizer's ids lie inside its model's table: Gemma 3 has a few more tokens than rows
_USUAL = 0.5  # of a table's rows have a token: tables are padded, but by less


@dataclass(frozen=True)
class Setting:
    """A source model, a target tokenizer, and how the one's vocabulary stands to the other's."""

    checkpoint: SourceCheckpoint
    source_tokenizer: LoadedTokenizer
    target_tokenizer: LoadedTokenizer
    source: ByteVocab
    target: ByteVocab
    alignment: Alignment  # over the rows of the new table: padding included
    segmentation: Segmentation
    template: Template
    carried: tuple[str, ...]  # chat markers that were added to the target
    tied: bool  # of the output

    @property
    def rows(self) -> int:
        """Height of the new tables."""
        return len(self.alignment.how)

    @property
    def roles(self) -> tuple[Role, ...]:
        """The tables that are made. One table in both roles is made as an output table: its errors cost more."""
        return ("output",) if self.tied else ("input", "output")

    @property
    def inputs(self) -> tuple[Path, ...]:
        """What the output may neither hold nor lie in. Beside a tokenizer's file it may lie: people work there."""
        tokenizer = self.target_tokenizer.path
        return (self.checkpoint.folder, tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the inputs."""
        return (*self.checkpoint.notes, *self.source_tokenizer.notes, *self.target_tokenizer.notes)


def prepare(options: TransplantOptions, progress: Progress = SILENT) -> Setting:
    """Open the inputs of a transplant and align their vocabularies."""
    with progress.stage("read the model's headers and both tokenizers"):
        folder = locate(options.model, "model", revision=options.revision)
        checkpoint = open_source(folder, trust_remote_code=options.trust_remote_code)
        source_tokenizer = _source_tokenizer(options, folder, checkpoint)
        target_tokenizer = load_tokenizer(
            options.tokenizer, revision=options.tokenizer_revision, trust_remote_code=options.trust_remote_code
        )
    carried: tuple[str, ...] = ()
    if options.carry_chat:
        target_tokenizer, carried = carry_chat(target_tokenizer, source_tokenizer)
    with progress.stage("align vocabularies and cut missing tokens"):
        source, target = byte_vocab(source_tokenizer), byte_vocab(target_tokenizer)
        alignment = align(
            source,
            target,
            maps=_maps(options, source, target),
            source_rows=checkpoint.rows,
            target_rows=padded(len(target), options.pad_to_multiple),
        )
        segmentation = segment(source, target, alignment)
    return Setting(
        checkpoint=checkpoint,
        source_tokenizer=source_tokenizer,
        target_tokenizer=target_tokenizer,
        source=source,
        target=target,
        alignment=alignment,
        segmentation=segmentation,
        template=choose_template(source_tokenizer, target_tokenizer),
        carried=carried,
        tied=checkpoint.tied and not options.untie,
    )


def padded(rows: int, multiple: int) -> int:
    """`rows`, rounded up to a multiple."""
    if multiple < 1:
        raise RequestError(f"--pad-to-multiple {multiple} is no number of rows.", "Give 1 or more, 64 for example.")
    return -(-rows // multiple) * multiple


def _source_tokenizer(options: TransplantOptions, folder: Path, checkpoint: SourceCheckpoint) -> LoadedTokenizer:
    try:
        tokenizer = load_tokenizer(str(folder), trust_remote_code=options.trust_remote_code)
    except RequestError as error:
        raise RequestError(
            f"The model {options.model} has no tokenizer that can be read: {error.message}",
            "Put the model's own tokenizer files into its folder.",
        ) from error
    ids, rows = tokenizer.backend.get_vocab().values(), checkpoint.rows
    used = sum(1 for index in ids if index < rows)
    if used < _FITS * len(ids):
        raise RequestError(
            f"The tokenizer in {options.model} does not fit its model: {len(ids):,} tokens, {rows:,} rows, "
            f"{used:,} ids inside the table.",
            "Put the tokenizer that the model was trained with into its folder.",
        )
    if used < _USUAL * rows:
        note = f"The tokenizer in {options.model} names only {used:,} of the model's {rows:,} rows: is it the model's?"
        return dataclasses.replace(tokenizer, notes=(*tokenizer.notes, note))
    return tokenizer


def _maps(options: TransplantOptions, source: ByteVocab, target: ByteVocab) -> Mapping[int, tuple[int, ...]]:
    return parse_maps(options.map, Path(options.map_file) if options.map_file else None, source, target)
