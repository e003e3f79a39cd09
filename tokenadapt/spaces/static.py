"""A static table with a tokenizer (model2vec, wordllama): a string is the mean of its tokens' rows."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from scipy.sparse import csr_array

from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.spaces.options import Matrix, unit
from tokenadapt.vocab.types import Ids

BATCH: Final = 16384  # strings cut at once


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
        self._number: dict[str, int] = {}  # string -> its run of table rows: neighbours are asked for again and again
        self._start, self._row = array("q", [0]), array("i")

    def prefetch(self, texts: Sequence[str]) -> None:
        """Cut strings into rows of the table; some 20 bytes each are kept, no vector."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._number]
        for at in range(0, len(fresh), BATCH):
            batch = fresh[at : at + BATCH]
            made = self.tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            for text, cut in zip(batch, made, strict=True):
                self._number[text] = len(self._number)
                self._row.extend(self._rows(cut.ids))
                self._start.append(len(self._row))

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Unit vectors; a string whose tokens are all unknown has none."""
        self.prefetch(texts)
        which = np.fromiter(map(self._number.__getitem__, texts), dtype=np.int64, count=len(texts))
        known, row = np.array(self._start), np.array(self._row, dtype=np.int32)
        count = known[which + 1] - known[which]
        start = np.concatenate(([0], np.cumsum(count)))
        row = row[np.arange(start[-1]) + np.repeat(known[which] - start[:-1], count)]
        weight = np.ones(len(row), dtype=np.float32) if self.weight is None else self.weight[row]
        total = csr_array((weight, row, start), shape=(len(texts), len(self.table))) @ self.table
        return unit(total / np.maximum(count, 1).astype(np.float32)[:, None])

    def _rows(self, tokens: list[int]) -> list[int]:
        if self.unknown is None and self.mapping is None and max(tokens, default=0) < len(self.table):
            return tokens
        known = [token for token in tokens if token != self.unknown]
        if self.mapping is not None:
            known = [int(self.mapping[token]) for token in known if token < len(self.mapping)]
        return [row for row in known if row < len(self.table)]


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
