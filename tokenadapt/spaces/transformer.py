"""`hf:ID`: any encoder that transformers loads, pooled as its own files say."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from tokenadapt.errors import RequestError
from tokenadapt.locate import is_hub_id, locate
from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.cache import VectorCache
from tokenadapt.spaces.options import Matrix, SpaceOptions, unit
from tokenadapt.spaces.pooling import Usage, pool, read_usage
from tokenadapt.spaces.stored import Input, StoredVectors

LONGEST: Final = 512  # tokens are short strings: what is longer is cut
CPU_BATCH: Final = 2048  # padded tokens: more does not fit the caches of a core
GPU_BATCH: Final = 65536
TOKENIZE_BLOCK: Final = 16384


def pick_device(options: SpaceOptions) -> torch.device:
    """The device asked for, else this rank's GPU, else the CPU."""
    if options.device not in (None, "auto"):
        try:
            return torch.device(options.device)
        except RuntimeError as error:
            raise RequestError(f"There is no device {options.device!r}.", "Say cpu, cuda or cuda:N.") from error
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


def precision(options: SpaceOptions, device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU, float32 elsewhere, unless asked otherwise."""
    if options.precision == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return torch.float32 if options.precision == "float32" else torch.bfloat16


def content_of(folder: Path) -> str:
    """What an encoder is: the Hub's commit, else a digest of all its files that can change a vector."""
    commit = re.search(r"/snapshots/([0-9a-f]{40})$", folder.as_posix())
    if commit:
        return commit.group(1)
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".safetensors", ".json", ".txt", ".model", ".py") and path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while chunk := file.read(1 << 24):
                    digest.update(chunk)
    return digest.hexdigest()


def longest_input(tokenizer: Any, config: Any, usage: Usage) -> int:
    """Tokens an input may have. `model_max_length` is a huge sentinel where nobody set it: it then says nothing."""
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int):
        positions -= 8 if positions > 64 else 0  # RoBERTa and its kin count from pad id + 1
    said = [tokenizer.model_max_length, positions, usage.longest, LONGEST]
    return min(int(limit) for limit in said if limit and 0 < limit < 1_000_000)


@contextmanager
def quiet() -> Iterator[None]:
    """No bars of transformers' own: progress is this program's matter."""
    from transformers.utils import logging as bars

    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


class TransformerEncoder:
    """Strings to vectors by an encoder's own tokenizer; strings that it reads alike are encoded once."""

    def __init__(self, spec: str, options: SpaceOptions, progress: Progress = SILENT) -> None:
        self.spec, self.options = spec, options
        self.folder = locate(spec, "model", revision=options.revision)
        self.usage = read_usage(self.folder, options)
        self.device = pick_device(options)
        self.dtype = precision(options, self.device)
        self.tokenizer = self._load("AutoTokenizer")
        self.config = self._load("AutoConfig")
        self.limit = longest_input(self.tokenizer, self.config, self.usage)
        self.special = frozenset(self.tokenizer.all_special_ids)
        alone = self._tokenize([self.usage.prefix.rstrip()])[0] if self.usage.prefix else ()
        self.head = sum(token not in self.special for token in alone)  # tokens of the prefix
        self._model: Any = None
        self._ids: dict[str, tuple[int, ...]] = {}
        identity = {
            "content": content_of(self.folder),
            "pooling": self.usage.pooling,
            "prefix": self.usage.prefix,
            "pool prefix": self.usage.pool_prefix,
            "precision": str(self.dtype).removeprefix("torch."),
            "longest": self.limit,
            "lower": self.usage.lower,
        }
        batch = options.batch_tokens or (CPU_BATCH if self.device.type == "cpu" else GPU_BATCH)
        title = f"hf:{spec}"
        self.stored = StoredVectors(VectorCache(title, identity), self.encode, batch, name=title, progress=progress)

    def prefetch(self, texts: Sequence[str]) -> None:
        """Encode what the cache lacks."""
        self.stored.prefetch([ids for ids in self._inputs(texts) if ids])

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Unit vectors; a string that the encoder's tokenizer reads as nothing or as unknown has none."""
        inputs = self._inputs(texts)
        live = [row for row, ids in enumerate(inputs) if ids]
        rows = self.stored.rows([inputs[row] for row in live])
        out = np.zeros((len(texts), rows.shape[1]), dtype=np.float32)
        out[live] = rows
        return out

    def _inputs(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Ids of each string as the model reads it, prefix and special tokens included; () where there is nothing."""
        fresh = list(dict.fromkeys(text for text in texts if text not in self._ids))
        for first in range(0, len(fresh), TOKENIZE_BLOCK):
            block = fresh[first : first + TOKENIZE_BLOCK]
            prefixed = [self.usage.prefix + (text.lower() if self.usage.lower else text) for text in block]
            for text, ids in zip(block, self._tokenize(prefixed), strict=True):
                known = sum(token not in self.special for token in ids) > self.head  # the unknown token is special
                self._ids[text] = ids if known else ()
        return [self._ids[text] for text in texts]

    def _tokenize(self, texts: list[str]) -> list[tuple[int, ...]]:
        return [tuple(ids) for ids in self.tokenizer(texts, truncation=True, max_length=self.limit)["input_ids"]]

    @torch.inference_mode()
    def encode(self, inputs: list[Input]) -> Matrix:
        """Vectors of one batch of ids: (n, d)."""
        if self._model is None:
            self._model = self._load_model().to(self.device).eval()
        ids, mask = self._padded(inputs)
        states = self._model(input_ids=ids, attention_mask=mask)[0]
        if self.head and not self.usage.pool_prefix:
            mask = mask.clone()
            lead = sum(1 for token in inputs[0][:1] if token in self.special)  # a [CLS] before the prefix
            mask[:, : lead + self.head] = 0
        return unit(pool(states, mask, self.usage.pooling).cpu().numpy())

    def _load_model(self) -> Any:
        """The encoder alone where the checkpoint has a decoder as well."""
        import transformers

        alone = type(self.config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING  # T5 and its kin, BERT and its kin
        auto = "AutoModelForTextEncoding" if alone else "AutoModel"
        model = self._load(auto, dtype=self.dtype, use_safetensors=True)
        return model.get_encoder() if self.config.is_encoder_decoder and not alone else model

    def _padded(self, inputs: list[Input]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, (B, T), padded on the right."""
        length = max(map(len, inputs))
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.full((len(inputs), length), pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, entry in enumerate(inputs):
            ids[row, : len(entry)] = torch.tensor(entry)
            mask[row, : len(entry)] = 1
        return ids.to(self.device), mask.to(self.device)

    def _load(self, auto: str, **options: Any) -> Any:
        """One of transformers' Auto classes; code from a repository runs only where the user allowed it."""
        import transformers

        trust = self.options.trust_remote_code
        place = str(self.folder)
        if trust and is_hub_id(self.spec):
            place = self.spec  # the snapshot at hand holds no code
            options["revision"] = self.options.revision or "main"
        try:
            with quiet():
                return getattr(transformers, auto).from_pretrained(place, trust_remote_code=trust, **options)
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())
            if "trust_remote_code" in reason:
                raise RequestError(
                    f"The encoder {self.spec} brings its own code, which is not run unless you say so.",
                    "If you trust its authors, allow it with --trust-remote-code; or choose another encoder.",
                ) from error
            raise RequestError(
                f"transformers cannot load the encoder {self.spec} ({reason[:200]}).",
                "An encoder needs config.json, a tokenizer and weights in safetensors; pickled weights are not read.",
            ) from error
