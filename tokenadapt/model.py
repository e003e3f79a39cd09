"""The source model as methods see it: tables, states, log-probabilities, and texts of its own. Loaded on first use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt import forward
from tokenadapt.errors import RequestError
from tokenadapt.forward import BATCH_TOKENS, Batch, Head, Kind, Sampling
from tokenadapt.plan import Role, Table
from tokenadapt.prefixes import Reader, following
from tokenadapt.progress import SILENT, Progress
from tokenadapt.threads import side_by_side
from tokenadapt.vocab.types import Ids

TEXTS_AT_ONCE = 64  # texts written together, by one thread
MOST_AT_ONCE = 16  # times as many on a GPU
SHORT = 32  # tokens of a sequence whose beginnings are worth looking for


class SourceModel:
    """A checkpoint folder behind `tokenadapt.plan.Model`.

    `start` is the id that a text begins with (bos, else eos); `stop` ids end a text. It computes in float32 on
    a CPU, in the checkpoint's own type on an accelerator. Nothing is loaded until states are asked for; `barrier` says
    why it must not be.
    """

    def __init__(
        self,
        folder: Path,
        tables: Mapping[Role, Table],
        *,
        tied: bool,
        kind: Kind = "causal",
        start: int | None = None,
        stop: Sequence[int] = (),
        sampling: Sampling | None = None,
        device: str = "auto",
        trust_remote_code: bool = False,
        barrier: str = "",
        progress: Progress = SILENT,
    ) -> None:
        self.folder, self.kind, self.start, self.stop = folder, kind, start, tuple(stop)
        self._tables, self._tied = tables, tied
        self.sampling = sampling or Sampling()
        self.device = device_of(device)
        self.trust_remote_code, self.barrier, self.progress = trust_remote_code, barrier, progress

    @property
    def tied(self) -> bool:
        """Whether one table serves both roles."""
        return self._tied

    def table(self, role: Role) -> Table:
        """The old table of a role."""
        return self._tables[role] if role in self._tables else self._tables["input"]

    @property
    def ready(self) -> bool:
        """Whether the samples and their states exist already, so that asking for them costs nothing."""
        return "_written" in self.__dict__

    @cached_property
    def _model(self) -> Any:
        if self.barrier:
            raise RequestError(
                f"The source model in {self.folder} cannot be run here: {self.barrier}.",
                "Choose a method that does not run it, for example hybrid, or a machine with more memory.",
            )
        dtype = torch.float32 if self.device.type == "cpu" else self.table("input").dtype
        model = forward.load_model(self.folder, self.kind, dtype, trust_remote_code=self.trust_remote_code)
        return model.to(self.device)

    @cached_property
    def _head(self) -> Head:
        if self.kind != "causal":
            what = {"masked": "a masked model", "seq2seq": "an encoder-decoder"}[self.kind]
            raise RequestError(
                f"{self.folder} is {what}: it has no log-probabilities of running text.",
                "Choose a method that does not need them, for example pieces or hybrid.",
            )
        head = Head(self._model)
        if not head.plain:
            raise RequestError(
                f"The model in {self.folder} does more between its layers and its logits than this program knows.",
                "Choose a method that does not need the source model's own probabilities.",
            )
        return head

    def states(self, sequences: Sequence[Sequence[int]], layers: Sequence[float]) -> NDArray[np.float32]:
        """Hidden states at each sequence's last position: (n, len(layers), D).

        A layer is a relative depth: 0 what the first layer reads, 1 what the last one leaves (after the final norm
        where the model has one).
        """
        out = np.zeros((len(sequences), len(layers), self.table("input").shape[1]), dtype=np.float32)
        for index, states in self.states_in_parts(sequences, layers):
            out[index] = states
        return out

    def states_in_parts(
        self, sequences: Sequence[Sequence[int]], layers: Sequence[float]
    ) -> Iterator[tuple[Ids, NDArray[np.float32]]]:
        """The same, some sequences at a time: their places, and (n, len(layers), D).

        Sequences that begin alike are read together, and no layer below the deepest that is asked for is run.
        """
        if any(not len(sequence) for sequence in sequences):
            raise ValueError("a sequence without a token has no state")
        run = forward.layers_of(self._model, self.kind)
        depth = int(run.config.get_text_config().num_hidden_layers)
        numbers = [round(layer * depth) for layer in layers]
        reader = Reader(run, numbers)
        able = self.kind == "causal" and reader.able
        parts = reader.read(sequences) if able else forward.states_of(run, self.kind, sequences, numbers)
        with self.progress.stage("states of the source model", len(sequences), "strings") as advance:
            for index, states in parts:
                yield index, states.numpy()
                advance(len(index))

    def log_probs(self, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Natural-log probability of each token given those before it: one (len - 1,) array per sequence.

        Of short sequences what begins alike is read once, and the head says once what follows it.
        """
        out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(sequences)
        length = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        for chosen, read in (
            (length <= SHORT, self._log_probs_by_beginning),
            (length > SHORT, self._log_probs_by_text),
        ):
            index = np.flatnonzero(chosen).tolist()
            found = read([sequences[at] for at in index]) if index else []
            for place, logs in zip(index, found, strict=True):
                out[place] = logs
        return out

    @torch.inference_mode()
    def _log_probs_by_beginning(self, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        head, asked = self._head, following(sequences)
        order = np.argsort(asked.owner, kind="stable")
        start = np.searchsorted(asked.owner[order], np.arange(len(asked.beginnings) + 1))
        found = np.zeros(len(order), np.float32)
        for index, states in self.states_in_parts(asked.beginnings, [1.0]):
            at = np.concatenate([order[start[place] : start[place + 1]] for place in index])
            owner = np.repeat(np.arange(len(index)), start[index + 1] - start[index])
            after = torch.from_numpy(states[:, 0]).to(head.module.weight)
            token = torch.from_numpy(asked.token[at])
            found[at] = forward.log_probs_of(head, after, token, torch.from_numpy(owner)).numpy()
        return np.split(found, np.cumsum([max(0, len(text) - 1) for text in sequences])[:-1])

    @torch.inference_mode()
    def _log_probs_by_text(self, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        head = self._head
        out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(sequences)
        with self.progress.stage("log-probabilities of the source model", len(sequences), "strings") as advance:
            for batch, states in self._read(sequences, 2 * BATCH_TOKENS):
                count = (batch.length - 1).clamp(min=0)
                inside = torch.arange(batch.ids.shape[1] - 1) < count[:, None]  # (B, T - 1)
                states = states[:, :-1]
                flat = forward.log_probs_of(head, states[inside.to(states.device)], batch.ids[:, 1:][inside])
                parts = torch.tensor_split(flat, count.cumsum(0)[:-1])
                for place, part in zip(batch.index, parts, strict=True):
                    out[place] = part.numpy()
                advance(len(batch.index))
        return out

    def _read(self, sequences: Sequence[Sequence[int]], budget: int) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Batches of sequences, and what the layers make of them: (B, T, D)."""
        model = self._model.base_model

        @torch.inference_mode()
        def read(batch: Batch) -> tuple[Batch, torch.Tensor]:
            return batch, model(**forward.inputs_of(batch, self.kind, self.device))[0]

        return side_by_side(read, forward.batches(sequences, budget), self.device)

    def continued(
        self, prompts: Sequence[Sequence[int]], tokens: int, seed: int = 0
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """For each prompt, in order, a text of `tokens` tokens that the model writes after it, and its states.

        A text begins with the token that begins a text, then its prompt; the states (len(text) - 1, D) float32 are
        those after each of its tokens but the last, scaled as the model scales its logits.
        """
        head = self._head
        begin = self.start if self.start is not None else next(iter(self.stop), 0)
        ends = torch.tensor([index for index in self.stop if index != begin], dtype=torch.long)
        positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        tokens = min(tokens, positions or tokens)
        together = self._together(tokens)
        with self.progress.stage("texts of the source model's own", len(prompts), "texts") as advance:

            def write(first: int) -> tuple[torch.Tensor, torch.Tensor]:
                part = prompts[first : first + together]
                given = torch.full((len(part), max(map(len, part))), -1, dtype=torch.long)
                for row, prompt in enumerate(part):
                    given[row, : len(prompt)] = torch.as_tensor(prompt, dtype=torch.long)
                starts = torch.full((len(part), 1), begin, dtype=torch.long)
                drawn = [  # by the same numbers, however many are written together
                    forward.points(min(TEXTS_AT_ONCE, len(part) - at), tokens - 1, seed + first + at)
                    for at in range(0, len(part), TEXTS_AT_ONCE)
                ]
                return forward.sample(self._model, head, starts, torch.cat(drawn), self.sampling.temperature, given)

            for ids, states in side_by_side(write, range(0, len(prompts), together), self.device):
                for row, after in zip(ids, states, strict=True):
                    length = _until(row, ends)
                    yield row[:length].tolist(), after[: length - 1] * head.scale
                advance(len(ids))

    def _together(self, tokens: int) -> int:
        """How many texts are written side by side: on a GPU what a quarter of its free memory surely holds."""
        if self.device.type != "cuda":
            return TEXTS_AT_ONCE
        config, free = self._model.config.get_text_config(), torch.cuda.mem_get_info(self.device)[0]
        kept = 2 * config.num_hidden_layers * config.hidden_size * tokens * self._model.dtype.itemsize
        each = kept + 4 * 8 * config.vocab_size  # keys and values; odds in float64
        return TEXTS_AT_ONCE * max(1, min(MOST_AT_ONCE, int(free / 4 / TEXTS_AT_ONCE / each)))

    @cached_property
    def _written(self) -> tuple[list[list[int]], torch.Tensor]:
        """Samples and their states, made together."""
        options = self.sampling
        texts, states = zip(*self.continued([[]] * options.texts, options.tokens, options.seed), strict=True)
        return list(texts), torch.cat(states)

    def states_with_rows(self, texts: Sequence[Sequence[int]], ids: Ids, rows: torch.Tensor) -> torch.Tensor:
        """What the head would read at all positions of `texts` but the last, were `rows` the input rows of `ids`.

        Scaled like `final_states`: (positions, D) float32. The model is what it was before, whatever happens.
        """
        weight = self._model.get_input_embeddings().weight.data.clone()
        weight[torch.from_numpy(np.asarray(ids, dtype=np.int64)).to(weight.device)] = rows.to(weight)
        return self.states_under(texts, weight)

    @torch.inference_mode()
    def states_under(self, texts: Sequence[Sequence[int]], table: torch.Tensor) -> torch.Tensor:
        """The same, were `table` (n, D) all input rows: the ids of `texts` are places in it."""
        head, holder = self._head, self._model.get_input_embeddings()
        own, padding = holder.weight, holder.padding_idx
        start = np.cumsum([0, *(len(text) - 1 for text in texts)])
        found = torch.zeros(int(start[-1]), own.shape[1])
        try:
            # in the module itself, since some models scale what they look up
            holder.weight, holder.padding_idx = torch.nn.Parameter(table.to(own), requires_grad=False), None
            with self.progress.stage("read its own texts with other rows", len(texts), "texts") as advance:
                for batch, states in self._read(texts, BATCH_TOKENS):
                    for place, length, row in zip(batch.index, batch.length.tolist(), states, strict=True):
                        found[start[place] : start[place + 1]] = row[: length - 1].float().cpu() * head.scale
                    advance(len(batch.index))
        finally:
            holder.weight, holder.padding_idx = own, padding
        return found

    def logits(self, states: torch.Tensor, ids: Ids, rows: torch.Tensor) -> torch.Tensor:
        """The model's logits of tokens `ids` at states scaled like `final_states`, were `rows` their output rows."""
        head = self._head
        found = states @ rows.T
        bias = getattr(head.module, "bias", None)
        if bias is not None:
            found += bias.detach()[torch.from_numpy(ids).to(bias.device)].float().cpu() * head.scale
        return head.cap * torch.tanh(found / head.cap) if head.cap else found

    def samples(self) -> list[list[int]]:
        """Texts written by the model itself, as ids of its own tokenizer; seeded, the same at every call."""
        return self._written[0]

    def final_states(self) -> torch.Tensor:
        """What the head reads at the positions of `samples()` but the last, scaled as the model scales its logits.

        A row's logit (before any soft cap) is then its product with the state: (positions, D) float32.
        """
        return self._written[1]


def device_of(name: str) -> torch.device:
    """The device that a name means; auto is a GPU if there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _until(row: torch.Tensor, ends: torch.Tensor) -> int:
    """Length of a text up to and with its first end."""
    hit = torch.isin(row[1:], ends).nonzero()
    return int(hit[0]) + 2 if len(hit) else len(row)
