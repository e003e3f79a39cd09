"""Every file of a result, written into its staging folder: tensors, configurations, tokenizer, plan, manifest, card."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokenadapt.checkpoint.card import CardFacts, pre_tokenizer_hash, source_license, write_card
from tokenadapt.checkpoint.chat import turn_end
from tokenadapt.checkpoint.companions import copy_companions
from tokenadapt.checkpoint.factors import COPIED, NEW, UNUSED, Factored, write_factors
from tokenadapt.checkpoint.factors import FILE as FACTORS
from tokenadapt.checkpoint.id_keys import TEXT
from tokenadapt.checkpoint.ids import Translated, respeller, translate_config
from tokenadapt.checkpoint.manifest import (
    Manifest,
    describe_input,
    describe_output,
    library_versions,
)
from tokenadapt.checkpoint.saved_plan import FILE as PLAN
from tokenadapt.checkpoint.saved_plan import save_plan, vocabulary_hash
from tokenadapt.checkpoint.shards import FLOATS
from tokenadapt.checkpoint.source import SourceCheckpoint
from tokenadapt.checkpoint.tokenizer_files import FILES as TOKENIZER_FILES
from tokenadapt.checkpoint.tokenizer_files import write_tokenizer
from tokenadapt.checkpoint.writer import write_checkpoint_tensors
from tokenadapt.checkpoint.written import NewTable, WrittenTensors
from tokenadapt.making import Job, MadeRole, make_bias
from tokenadapt.methods.registry import find
from tokenadapt.plan import Dense, Role
from tokenadapt.progress import SILENT, Progress
from tokenadapt.recipe import DTYPES
from tokenadapt.vocab import id_map
from tokenadapt.vocab.types import How

_NOT_RECORDED = frozenset({"model", "tokenizer", "output", "method", "output_method", "seed", "push_to_hub", "public"})


def assemble(job: Job, made: tuple[MadeRole, ...], staging: Path, progress: Progress = SILENT) -> Manifest:
    """Write the whole result into `staging`; the manifest comes last and has no report of checks yet."""
    written = _write_tensors(job, made, staging, progress)
    factors = _write_factors(job, made, staging, progress)
    with progress.stage("write configurations, tokenizer and plan"):
        translated = _write_configurations(job, staging)
        setting = job.setting
        write_tokenizer(
            setting.target_tokenizer,
            staging,
            positions=setting.checkpoint.positions,
            chat_template=setting.template.template,
            token_types="type_vocab_size" in setting.checkpoint.config,
        )
        copy_companions(setting.checkpoint.folder, setting.checkpoint.config, staging)
        save_plan(
            staging / PLAN,
            setting.alignment,
            {one.role: one.made for one in made},
            source=setting.source,
            target=setting.target,
            methods={one.role: one.method for one in made},
            calibration=job.choice.calibration,
            options={"tied": setting.tied, "fallback": str(job.choice.fallback)},
        )
        manifest = dataclasses.replace(_manifest(job, made, translated, written, staging), factors=factors)
        manifest.write(staging)
    return manifest


def finish(
    job: Job, manifest: Manifest, report: Mapping[str, Any], seconds: Mapping[str, float], staging: Path
) -> Manifest:
    """Put the report of the checks and the times into the manifest, and write the card."""
    complete = dataclasses.replace(manifest, verify=report, seconds=dict(seconds))
    complete.write(staging)
    setting = job.setting
    methods = {chosen.name: find(chosen.name) for chosen in job.choice.methods.values()}
    facts = CardFacts(
        kind=setting.checkpoint.kind,
        citations=tuple(method.citation for method in methods.values()),
        source_license=source_license(setting.checkpoint.folder),
        unused=setting.alignment.unused.tolist(),
        pre_tokenizer=pre_tokenizer_hash(setting.target_tokenizer.fast.encode),
    )
    write_card(staging, complete, facts)
    return complete


def _write_tensors(job: Job, made: tuple[MadeRole, ...], staging: Path, progress: Progress) -> WrittenTensors:
    checkpoint, tied = job.setting.checkpoint, job.setting.tied
    tables: dict[Role, NewTable] = {}
    for one in made:
        role: Role = "input" if tied else one.role
        tables[role] = NewTable(one.shape, one.dtype, one.blocks)
    output = made[-1]
    biases = {ref.name: make_bias(job.setting, output, checkpoint.bias(ref)) for ref in checkpoint.biases}
    options = job.options
    return write_checkpoint_tensors(
        checkpoint,
        staging,
        tables,
        biases,
        untie=options.untie,
        copy=options.copy,
        hash_untouched=options.verify != "tables",  # so that the folder can be checked later by itself
        progress=progress,
    )


def _write_factors(
    job: Job, made: tuple[MadeRole, ...], staging: Path, progress: Progress
) -> dict[str, dict[str, float]]:
    """The factors of tables whose method was asked for them; nothing is written where none was."""
    alignment = job.setting.alignment
    group = np.where(alignment.source_id >= 0, COPIED, np.where(alignment.how == How.MISSING, NEW, UNUSED))
    wanted: dict[Role, Factored] = {
        "input" if job.setting.tied else one.role: Factored(
            dataclasses.replace(one, dtype=torch.float32).blocks, one.made.primitives, group
        )
        for one in made
        if isinstance(one.made, Dense) and one.made.primitives is not None
    }
    return write_factors(staging / FACTORS, wanted, progress) if wanted else {}


def _write_configurations(job: Job, staging: Path) -> Translated:
    setting = job.setting
    checkpoint = setting.checkpoint
    translate = id_map(setting.source, setting.target, setting.alignment)
    translated = translate_config(
        checkpoint.config,
        checkpoint.generation_config,
        translate,
        setting.target.roles,
        rows=setting.rows,
        tied=setting.tied,
        chat_end=turn_end(setting.target_tokenizer, setting.template.template),
        respell=respeller(setting.source, setting.target, translate),
    )
    if job.options.dtype and not checkpoint.config.get("quantization_config"):
        _widen(translated.config, checkpoint, job.options.dtype)
    _write_json(staging / "config.json", translated.config)
    if translated.generation_config is not None:
        _write_json(staging / "generation_config.json", translated.generation_config)
    return translated


def _widen(config: dict[str, Any], checkpoint: SourceCheckpoint, dtype: str) -> None:
    """Let the configuration name a type that holds tables of `dtype`: loaders convert all they read to what it names.

    Where it names none, one that holds the other tensors too.
    """
    places = [place for place in (config, *map(config.get, TEXT)) if isinstance(place, dict)]
    named = [(place, key) for place in places for key in ("dtype", "torch_dtype") if place.get(key) in DTYPES]
    asked = getattr(torch, dtype)
    for place, key in named:
        place[key] = _name(torch.promote_types(getattr(torch, place[key]), asked))
    if not named:
        stored = {ref.dtype for shard in checkpoint.shards for ref in shard.tensors}
        types = [FLOATS[one] for one in sorted(stored) if one in FLOATS]
        config["torch_dtype"] = _name(functools.reduce(torch.promote_types, types, asked))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def _settings(job: Job, one: MadeRole) -> dict[str, Any]:
    """Every option of a role's method; of auto also what it took."""
    chosen = job.choice.methods[one.role]
    return {**chosen.settings, "taken": one.method} if one.method != str(chosen) else chosen.settings


def _manifest(
    job: Job, made: tuple[MadeRole, ...], translated: Translated, written: WrittenTensors, staging: Path
) -> Manifest:
    setting, options, overlap = job.setting, job.options, job.overlap
    checkpoint = setting.checkpoint
    recorded = {name: value for name, value in dataclasses.asdict(options).items() if name not in _NOT_RECORDED}
    tokenizer = setting.target_tokenizer
    model_files = ("config.json", "generation_config.json", *TOKENIZER_FILES)
    return Manifest(
        source=describe_input(
            options.model,
            checkpoint.folder,
            model_files,
            vocabulary=vocabulary_hash(setting.source),
            tied=checkpoint.tied,
            rows=checkpoint.rows,
        ),
        target=describe_input(
            options.tokenizer, tokenizer.path, TOKENIZER_FILES, vocabulary=vocabulary_hash(setting.target)
        ),
        methods={role: str(chosen) for role, chosen in job.choice.methods.items()},
        options={**recorded, "settings": {one.role: _settings(job, one) for one in made}},
        seed=options.seed,
        counts=overlap.counts,
        spelled_alike=overlap.spelled_alike,
        specials=overlap.specials,
        changes=translated.changes,
        chat=setting.template.reason,
        notes=setting.notes,
        versions=library_versions(),
        **describe_output(staging, written),
    )
