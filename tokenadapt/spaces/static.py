"""A static table with a tokenizer (model2vec, wordllama): a string is the mean of its tokens' rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.spaces.options import Matrix, unit
from tokenadapt.vocab.types import Ids


class StaticEncoder:
    """Means of rows of a safetensors table; `weights` and `mapping` tensors of model2vec are honoured."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        spelling, tables = folder / "tokenizer.json", sorted(folder.glob("*.safetensors"))
        if not spelling.is_file() or len(tables) != 1:
            has = "a" if spelling.is_file() else "no"
            raise RequestError(
                f"{folder} holds {len(tables)} .safetensors files and {has} tokenizer.json.",
                "A static space is a folder with one table in safetensors and its tokenizer.json.",
            )
        self.table, self.weight, self.mapping = read_table(tables[0])
        self.tokenizer = Tokenizer.from_file(str(spelling))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        unknown = getattr(self.tokenizer.model, "unk_token", None)
        self.unknown = self.tokenizer.token_to_id(unknown) if unknown else None
        self._known: dict[str, Matrix] = {}  # neighbours are asked for in chunks, and again when they are settled

    def prefetch(self, texts: Sequence[str]) -> None:
        """Nothing to prepare: strings are read when they are first asked for, and kept."""

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Unit vectors; a string whose tokens are all unknown has none."""
        fresh = [text for text in texts if text not in self._known]
        self._known.update(zip(fresh, self._read(fresh), strict=True))
        if not texts:
            return np.zeros((0, self.table.shape[1]), dtype=np.float32)
        return np.stack([self._known[text] for text in texts])

    def _read(self, texts: Sequence[str]) -> Matrix:
        out = np.zeros((len(texts), self.table.shape[1]), dtype=np.float32)
        for number, made in enumerate(self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)):
            ids = np.array([token for token in made.ids if token != self.unknown], dtype=np.int64)
            if self.mapping is not None:
                ids = self.mapping[ids[ids < len(self.mapping)]]
            ids = ids[ids < len(self.table)]
            if len(ids):
                rows = self.table[ids].astype(np.float32)
                out[number] = (rows if self.weight is None else rows * self.weight[ids, None]).mean(axis=0)
        return unit(out)


def read_table(path: Path) -> tuple[Matrix, Matrix | None, Ids | None]:
    """The one matrix of a safetensors file, with row weights and a token-to-row mapping where it has them."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TokenAdaptError(
            f"{path} is no readable safetensors file ({error}).", "Fetch or write it again."
        ) from error
    matrices = [name for name, tensor in tensors.items() if tensor.ndim == 2]
    if len(matrices) != 1:
        raise RequestError(
            f"{path} holds {len(matrices)} matrices ({', '.join(sorted(tensors)[:5])}), a static table is one.",
            "Name a folder whose safetensors file holds a single embedding table.",
        )
    rows = tensors[matrices[0]].float().numpy()
    weight = tensors["weights"].float().numpy() if "weights" in tensors else None
    mapping = tensors["mapping"].long().numpy() if "mapping" in tensors else None
    return rows, weight, mapping
