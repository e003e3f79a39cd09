"""What the source model says next, in target tokens: texts of its own, read again with the target tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.methods.pieces import readable
from tokenadapt.plan import Dense, Model, Plan, Problem, Table, missing_rows, rows_at_once
from tokenadapt.spaces.cache import content_key
from tokenadapt.spaces.own import fingerprint
from tokenadapt.spaces.shelf import shelf
from tokenadapt.vocab.script import script_of_token
from tokenadapt.vocab.types import Alignment, ByteVocab, How, Ids

LENGTH: Final = 72  # tokens of a text, its prompt included
PROMPT: Final = 8  # pieces of a prompt at most
FEWEST: Final = 500  # positions below which texts say nothing
HELD_OUT: Final = 10  # every tenth text judges what the others taught
REPEATED: Final = 2  # of every second text the first half is read twice


@dataclass(frozen=True)
class Observed:
    """Positions of the model's own texts at which a target token begins."""

    states: torch.Tensor  # (n, D) float32: what the head reads there
    label: Ids  # (n,) the target token that comes next
    text: Ids  # (n,) the text of each position, ascending

    @property
    def judges(self) -> NDArray[np.bool_]:
        """Whether each position is of a text that judges what the others teach: (n,)."""
        return np.asarray(self.text % HELD_OUT == 0)

    def take(self, index: Ids) -> Observed:
        """Some of the positions."""
        return Observed(self.states[torch.from_numpy(index)], self.label[index], self.text[index])


@dataclass(frozen=True)
class Retold:
    """A text of the source model's own in target tokens."""

    number: int
    ids: Ids  # (n + 1,) what begins the text is named by -1 less its old id
    chosen: NDArray[np.bool_]  # (n,) of each token but the first: whether the model chose it, not the prompt

    @property
    def judges(self) -> bool:
        """Whether this text judges what the others teach."""
        return self.number % HELD_OUT == 0


def retell(problem: Problem, texts: int) -> list[Retold]:
    """Let the source model write `texts` texts, and cut them into target tokens.

    A text is prompted by the pieces of a missing token drawn at random, rare scripts more often: so the model writes of
    what the new vocabulary is about.
    """
    assert problem.model is not None
    asked = prompts(problem, texts)
    begun = {index for role, index in problem.source.roles.items() if role in ("bos", "eos")}
    told: list[Retold] = []
    for number, ids in enumerate(written(problem.model, asked, LENGTH, problem.seed)):
        body = ids[1:-1] if ids[-1] in begun else ids[1:]
        tokens, chosen = read_again(problem.source, problem.target, body, len(asked[number]))
        if len(tokens):
            chosen &= problem.alignment.how[tokens] != How.UNUSED
            told.append(Retold(number, np.concatenate([[-1 - ids[0]], tokens]), chosen))
    return told


def with_repeats(problem: Problem, told: Sequence[Retold]) -> list[Retold]:
    """The texts, and beside some of them one that says their first half twice: the second time is to be learned from.

    Texts that a model writes hardly repeat a new token, and real ones do. A model that copies what it has read says so
    by a state of its own, which output rows must heed.
    """
    found: list[Retold] = []
    for text in told:
        found.append(text)
        half = text.ids[1 : 1 + len(text.chosen) // 2]
        if text.number % REPEATED == 0 and len(half) > 1:
            again = (np.arange(2 * len(half)) > len(half)) & np.tile(problem.alignment.how[half] != How.UNUSED, 2)
            found.append(Retold(text.number, np.concatenate([text.ids[:1], half, half]), again))
    return found


def observe(problem: Problem, inputs: Plan | Dense, told: Sequence[Retold]) -> Observed:
    """States of the model with its new input rows, since those are what its new output rows will meet."""
    empty = np.zeros(0, dtype=np.int64)
    if not told:
        return Observed(torch.zeros(0, problem.width), empty, empty)
    keep = np.flatnonzero(np.concatenate([text.chosen for text in told]))
    label = np.concatenate([text.ids[1:] for text in told])
    number = np.repeat([text.number for text in told], [len(text.chosen) for text in told])
    states = _states(problem, inputs, [text.ids for text in told])[torch.from_numpy(keep)]
    return Observed(states, label[keep], number[keep])


def _states(problem: Problem, inputs: Plan | Dense, texts: Sequence[Ids]) -> torch.Tensor:
    """States before each target token, under the new input rows. An id below 0 is -1 less an old one."""
    assert problem.model is not None
    ids, where = np.unique(np.concatenate(texts), return_inverse=True)
    rows = new_rows(problem.model.table("input"), problem.alignment, inputs, ids)
    ends = np.cumsum([len(text) for text in texts])[:-1]
    return problem.model.states_under([part.tolist() for part in np.split(where.reshape(-1), ends)], rows)


def new_rows(table: Table, alignment: Alignment, made: Plan | Dense, ids: Ids) -> torch.Tensor:
    """Float32 rows of target tokens, `ids` ascending; an id below 0 is -1 less an old one, an unused id is zero."""
    known = np.maximum(ids, 0)
    source = np.where(ids < 0, -1 - ids, alignment.source_id[known])
    rows = torch.zeros(len(ids), table.shape[1])
    copied = np.flatnonzero(source >= 0)
    rows[torch.from_numpy(copied)] = table.rows(source[copied]).float()
    fresh = np.flatnonzero((source < 0) & (alignment.how[known] == How.MISSING))
    rows[torch.from_numpy(fresh)] = chosen_rows(table, made, np.searchsorted(alignment.missing, ids[fresh]))
    return rows


def of_inputs(problem: Problem) -> Problem:
    """The same problem for the input table."""
    assert problem.model is not None
    return replace(problem, role="input", table=problem.model.table("input"))


def chosen_rows(table: Table, made: Plan | Dense, index: Ids) -> torch.Tensor:
    """Float32 rows of some missing tokens, `index` ascending, made block by block: (len(index), D)."""
    step = rows_at_once(table.shape[1])
    parts = [torch.zeros(0, table.shape[1])]
    for first in range(0, int(index[-1]) + 1 if len(index) else 0, step):
        last = min(first + step, int(index[-1]) + 1)
        inside = index[(index >= first) & (index < last)] - first
        if len(inside):
            parts.append(missing_rows(table, made, first, last)[torch.from_numpy(inside)])
    return torch.cat(parts)


def prompts(problem: Problem, texts: int) -> list[list[int]]:
    """Pieces of missing tokens, shortest first, so that texts written side by side begin together.

    A script's share of the draws goes as the root of its share of the tokens: in most vocabularies Latin is more than
    half, and of others too little would be written to learn from.
    """
    cut = readable(problem)
    order = canonical(problem)
    usable = order[cut.counts[order] > 0]
    if not len(usable):
        return [[]] * texts
    tokens = [problem.target.token_bytes[index] or b"" for index in problem.alignment.missing[usable].tolist()]
    _, script, count = np.unique([script_of_token(token) for token in tokens], return_inverse=True, return_counts=True)
    weight = count[script.reshape(-1)] ** -0.5
    drawn = np.random.default_rng(problem.seed).choice(usable, texts, p=weight / weight.sum())
    drawn = drawn[np.argsort(cut.counts[drawn], kind="stable")]
    return [cut.piece[cut.start[j] : cut.start[j + 1]][:PROMPT].tolist() for j in drawn]


def canonical(problem: Problem) -> Ids:
    """Positions of the missing tokens in the order of their bytes: what is drawn in it does not depend on ids."""
    tokens = [problem.target.token_bytes[index] or b"" for index in problem.alignment.missing.tolist()]
    return np.array(sorted(range(len(tokens)), key=tokens.__getitem__), dtype=np.int64)


def written(model: Model, asked: list[list[int]], length: int, seed: int) -> list[list[int]]:
    """The texts that a model writes after some prompts, as ids; kept in the cache, so that they are written once."""
    about = json.dumps([fingerprint(model, [0]), asked, length, seed])
    key, kept = f"own-{content_key(about.encode()).hex()}", shelf()
    found = kept.get(key)
    if found is None or len(found) != len(asked):
        found = [ids for ids, _ in model.continued(asked, length, seed)]
        kept.put(key, found)
    return found


def read_again(source: ByteVocab, target: ByteVocab, ids: list[int], given: int) -> tuple[Ids, NDArray[np.bool_]]:
    """Target tokens (n,) of the text of source `ids`, and whether each begins after the first `given` of them.

    The last target token is left out: the text may go on inside it. Empty where the target tokenizer changes the text.
    """
    parts = source.bytes_of(ids)
    text = b"".join(parts).decode("utf-8", "ignore")
    tokens = target.encode([text])[0]
    pieces = [target.token_bytes[token] or b"" for token in tokens]
    read, wanted = b"".join(pieces), text.encode()
    extra = len(read) - len(wanted)
    if not tokens or extra not in (0, 1) or read[extra:] != wanted or not b"".join(parts).startswith(wanted):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)  # one byte more is a space put before a text
    begins = np.cumsum([0, *map(len, pieces)])[:-1] - extra
    return np.array(tokens[:-1], dtype=np.int64), begins[:-1] >= sum(map(len, parts[:given]))
