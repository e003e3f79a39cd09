"""What the source model says next, in target tokens: states and labels from texts of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from tokenadapt.methods.pieces import readable
from tokenadapt.plan import Problem
from tokenadapt.vocab.types import ByteVocab, How, Ids

LENGTH: Final = 72  # tokens of a text, its prompt included
PROMPT: Final = 8  # pieces of a prompt at most
ASKED: Final = 4096  # texts whose prompts may be sorted together


@dataclass(frozen=True)
class Observed:
    """Positions of the model's own texts at which a target token begins."""

    states: torch.Tensor  # (n, D) float32: what the head reads there
    label: Ids  # (n,) the target token that comes next
    text: Ids  # (n,) the text of each position, ascending

    def take(self, index: Ids) -> Observed:
        """Some of the positions."""
        return Observed(self.states[torch.from_numpy(index)], self.label[index], self.text[index])


def observe(problem: Problem, texts: int) -> Observed:
    """Let the source model write `texts` texts and read them with the target tokenizer.

    A text is prompted by the pieces of a missing token drawn at random: so the model writes of what the new vocabulary
    is about. A position counts where both tokenizers begin a token and the model, not the prompt, chose what follows.
    """
    assert problem.model is not None
    asked = prompts(problem, texts)
    begun = {role: index for role, index in problem.source.roles.items() if role in ("bos", "eos")}
    states: list[torch.Tensor] = []
    label: list[Ids] = []
    text: list[Ids] = []
    for number, (ids, after) in enumerate(problem.model.continued(asked, LENGTH, problem.seed)):
        body = ids[1:-1] if ids[-1] in begun.values() else ids[1:]
        found = shared_starts(problem.source, problem.target, body)
        place, token = found[:, 0], found[:, 1]
        keep = (place >= len(asked[number])) & (problem.alignment.how[token] != How.UNUSED)
        states.append(after[torch.from_numpy(place[keep])])
        label.append(token[keep])
        text.append(np.full(int(keep.sum()), number, dtype=np.int64))
    empty = np.zeros(0, dtype=np.int64)
    width = problem.width
    return Observed(
        torch.cat([torch.zeros(0, width), *states]), np.concatenate([empty, *label]), np.concatenate([empty, *text])
    )


def prompts(problem: Problem, texts: int) -> list[list[int]]:
    """Pieces of missing tokens, shortest first, so that texts written side by side begin together."""
    cut = readable(problem)
    order = canonical(problem)
    usable = order[cut.counts[order] > 0]
    if not len(usable):
        return [[]] * texts
    drawn = np.random.default_rng(problem.seed).choice(usable, texts)
    drawn = drawn[np.argsort(cut.counts[drawn], kind="stable")]
    return [cut.piece[cut.start[j] : cut.start[j + 1]][:PROMPT].tolist() for j in drawn]


def canonical(problem: Problem) -> Ids:
    """Positions of the missing tokens in the order of their bytes: what is drawn in it does not depend on ids."""
    tokens = [problem.target.token_bytes[index] or b"" for index in problem.alignment.missing.tolist()]
    return np.array(sorted(range(len(tokens)), key=tokens.__getitem__), dtype=np.int64)


def shared_starts(source: ByteVocab, target: ByteVocab, ids: list[int]) -> Ids:
    """Where a token of both tokenizers begins in the text of source `ids`: (n, 2) places in `ids`, target tokens.

    The last target token is left out: the text may go on inside it. Empty where the target tokenizer changes the text.
    """
    parts = [source.token_bytes[index] or b"" for index in ids]
    text = b"".join(parts).decode("utf-8", "ignore")
    tokens = target.encode([text])[0]
    pieces = [target.token_bytes[token] or b"" for token in tokens]
    read, wanted = b"".join(pieces), text.encode()
    extra = len(read) - len(wanted)
    if not tokens or extra not in (0, 1) or read[extra:] != wanted or not b"".join(parts).startswith(wanted):
        return np.zeros((0, 2), dtype=np.int64)  # one byte more is the space that a tokenizer puts before a text
    old = np.cumsum([0, *map(len, parts)])[:-1]
    new = np.cumsum([0, *map(len, pieces)])[:-1] - extra
    last_of = {int(at): place for place, at in enumerate(old)}  # a token without bytes stands before one that has some
    found = [(last_of[int(at)], token) for at, token in zip(new[:-1], tokens[:-1], strict=True) if int(at) in last_of]
    return np.array(found, dtype=np.int64).reshape(-1, 2)
