"""Small problems made of byte strings, with known vectors: no tokenizer, no model, no file."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch

from tokenadapt.plan import MemoryTable, Problem
from tokenadapt.vocab.types import Alignment, ByteVocab, How, Kind, Segmentation

OLD = (
    None,
    b"t",
    b"h",
    b"e",
    b" ",
    b"the",
    b" the",
    b"re",
    b"r",
    b"in",
    b"n",
    b"i",
    b"\xc3",
    b"\xa9",
    "é".encode(),
    b"ing",
)
NEW = (
    None,
    b"there",
    b"the",
    b" there",
    b"the\xc3",
    b"in",
    "thé".encode(),
    b"rein",
    b"\xff",
    b"theing",
    None,
    b"re",
    b"ing",
)


def byte_vocab(tokens):
    kinds = [Kind.SPECIAL if token is None else Kind.ORDINARY for token in tokens]
    texts = tuple("<s>" if token is None else token.decode("latin-1") for token in tokens)
    known = {token: index for index, token in enumerate(tokens) if token is not None}
    merges = [
        (i, known[token[n:]])
        for token in sorted(known, key=lambda token: (len(token), known[token]))
        for n in range(1, len(token))
        for i in [known.get(token[:n], -1)]
        if i >= 0 and token[n:] in known
    ]
    return ByteVocab(
        tuple(tokens), np.array(kinds, np.uint8), texts, {}, _encode(tokens), _spell(tokens),
        merges=np.array(merges, np.int64).reshape(-1, 2),
    )  # fmt: skip


def _spell(tokens):
    def spell(words):
        return [cut(word, tokens) for word in words]

    return spell


def _encode(tokens):
    return lambda texts: [cut(text.encode(), tokens) or [] for text in texts]


def cut(word, tokens):
    """Longest first, left to right; None where no token fits."""
    ids = {token: index for index, token in enumerate(tokens) if token is not None}
    out, at = [], 0
    while at < len(word):
        size = next((n for n in range(len(word) - at, 0, -1) if word[at : at + n] in ids), None)
        if size is None:
            return None
        out.append(ids[word[at : at + size]])
        at += size
    return out


def align(old, new):
    ids = {token: index for index, token in reversed(list(enumerate(old))) if token is not None}
    source = np.array([ids.get(token, -1) if token is not None else -1 for token in new])
    how = np.array([
        How.UNUSED if token is None else How.COPIED if token in ids else How.MISSING for token in new
    ], np.uint8)  # fmt: skip
    return Alignment(source, how)


def segment(old, new, alignment):
    runs, lengths, whole = [], [], []
    for index in alignment.missing:
        run = cut(new[index], old) or []
        try:
            size = [len(old[i].decode()) for i in run]
            total = len(new[index].decode())
        except UnicodeDecodeError:
            size, total = [len(old[i]) for i in run], len(new[index])
        runs.append(run)
        lengths += size
        whole.append(total)
    start = np.cumsum([0] + [len(run) for run in runs])
    piece = np.array([i for run in runs for i in run], dtype=np.int64)
    return Segmentation(start, piece, np.array(lengths, dtype=np.int64), np.array(whole, dtype=np.int64))


def vector(token, width):
    """A unit vector that depends on the bytes alone, with some likeness between all."""
    if token is None:
        return np.zeros(width, np.float32)
    seed = int.from_bytes(blake2b(token, digest_size=4).digest(), "little")
    raw = np.random.default_rng(seed).normal(size=width) + 0.5
    return (raw / np.linalg.norm(raw)).astype(np.float32)


@dataclass(frozen=True)
class TinySpace:
    old: np.ndarray
    new: np.ndarray
    name: str = "tiny"

    def source(self, ids):
        return self.old[ids]

    def missing(self, index):
        return self.new[index]

    def neighbours(self, k):
        cosines = self.new @ self.old.T
        valid = self.old.any(1)[None, :] & self.new.any(1)[:, None]
        cosines = np.where(valid, cosines, -np.inf)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(cosines, order, 1)
        if order.shape[1] < k:
            gap = k - order.shape[1]
            order, best = np.pad(order, ((0, 0), (0, gap)), constant_values=-1), np.pad(best, ((0, 0), (0, gap)))
        missing = ~np.isfinite(best)
        return np.where(missing, -1, order), np.where(missing, 0, best).astype(np.float32)


@dataclass(frozen=True)
class TinyDonor:
    """A model with the target's tokens under other ids."""

    vocab: object
    rows: torch.Tensor

    def table(self, role):
        return MemoryTable(self.rows if role == "input" else -self.rows)


def make_donor(tokens=NEW, width=5, rows=None):
    """Tokens in reverse order after three of its own; a token's row depends on its bytes alone."""
    own = (b"own1", b"own2", None, *reversed(tokens))
    if rows is None:
        rows = torch.from_numpy(np.stack([2 * vector(token, width) + 0.5 for token in own]))
    return TinyDonor(byte_vocab(own), rows)


class TinyModel:
    """A bigram model: its state after a token is a fixed row, its logits are that row times the table."""

    def __init__(self, rows, begin=0, seed=4):
        self.rows, self.begin, self.tied, self.device = rows.float(), begin, False, torch.device("cpu")
        states = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
        self.after = torch.cat([states[:, :-1], torch.ones(len(rows), 1)], dim=1)  # they agree in one direction

    def table(self, role):
        return MemoryTable(self.rows)

    def states(self, sequences, layers):
        last = torch.stack([self.after[sequence[-1]] for sequence in sequences])
        return last[:, None].expand(-1, len(layers), -1).numpy()

    def states_in_parts(self, sequences, layers):
        yield np.arange(len(sequences)), self.states(sequences, layers)

    def log_probs(self, sequences):
        logs = torch.log_softmax(self.after @ self.rows.T, 1)
        return [logs[list(ids[:-1]), list(ids[1:])].numpy() for ids in sequences]

    def continued(self, prompts, tokens, seed=0):
        drawn, chance = np.random.default_rng(seed), torch.softmax((self.after @ self.rows.T).double(), 1).numpy()
        for prompt in prompts:
            ids = [self.begin, *prompt][:tokens]
            while len(ids) < tokens:
                ids.append(int(drawn.choice(len(self.rows), p=chance[ids[-1]] / chance[ids[-1]].sum())))
            yield ids, self.after[ids[:-1]]

    def states_with_rows(self, texts, ids, rows):
        after = self.after.clone()
        after[ids] += rows - self.rows[ids]  # what a token leaves moves with its input row
        return torch.cat([after[text[:-1]] for text in texts])

    def states_under(self, texts, table):
        near = torch.cdist(table, self.rows).argmin(1)
        after = self.after[near] + table - self.rows[near]  # known for old rows, from which it moves
        after[:, -1] = 1
        return torch.cat([after[text[:-1]] for text in texts])

    def logits(self, states, ids, rows):
        return states @ rows.T

    def samples(self):
        return [ids for ids, _ in self.continued([[]] * 20, 30)]

    def final_states(self):
        return torch.cat([states for _, states in self.continued([[]] * 20, 30)])


TEXTS = ("there the in", "rein there", "theing there thé", "the there\xff thé in there", "in rein thein")


def make_problem(old=OLD, new=NEW, *, role="input", width=8, seed=0, dtype=torch.float32, table=None, **more):
    alignment = align(old, new)
    if table is None:
        table = torch.randn(len(old), width, generator=torch.Generator().manual_seed(5)).to(dtype)
    space = TinySpace(
        np.stack([vector(token, 6) for token in old]),
        np.stack([vector(new[i], 6) for i in alignment.missing] or [np.zeros(6, np.float32)])[: len(alignment.missing)],
    )
    return Problem(
        byte_vocab(old), byte_vocab(new), alignment, segment(old, new, alignment), role, MemoryTable(table),
        **({"space": space, "seed": seed} | more),
    )  # fmt: skip
