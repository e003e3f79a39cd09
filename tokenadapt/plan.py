"""The border between methods and matrices: a Problem goes in, a Plan or Dense comes out, `build_table` applies it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tokenadapt.progress import SILENT, Progress
from tokenadapt.threads import CPU, precise
from tokenadapt.vocab.types import Alignment, ByteVocab, How, Ids, Kind, Segmentation

Role = Literal["input", "output"]
MEAN = -1  # as an old id in a plan: the mean of the old ordinary rows, which no short list of ids can say
BLOCK_ROWS = 8192  # rows gathered at once, at most
BLOCK_NUMBERS = 3 << 20  # numbers gathered at once: 12 MB in float32, which a process gets without new pages each time


class Table(Protocol):
    """A matrix with one row per token id, readable by row without holding all of it."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Storage type."""
        ...

    def rows(self, ids: Ids) -> torch.Tensor:
        """Rows `ids` in storage type: (len(ids), D)."""
        ...


@dataclass(frozen=True)
class MemoryTable:
    """A table held in memory."""

    tensor: torch.Tensor  # (V, D)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width."""
        return int(self.tensor.shape[0]), int(self.tensor.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """Storage type."""
        return self.tensor.dtype

    def rows(self, ids: Ids) -> torch.Tensor:
        """Rows `ids` in storage type."""
        return self.tensor[torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64))]


class Space(Protocol):
    """Auxiliary vectors in which similarity is measured: `source` by old id, `missing` by order of missing tokens."""

    @property
    def name(self) -> str:
        """What a user typed after --space."""
        ...

    def source(self, ids: Ids) -> NDArray[np.float32]:
        """Unit vectors of old tokens: (len(ids), d); a zero row where a token has none."""
        ...

    def missing(self, index: Ids) -> NDArray[np.float32]:
        """Unit vectors of missing tokens by position 0..M-1: (len(index), d); a zero row where a token has none."""
        ...

    def neighbours(self, k: int) -> tuple[Ids, NDArray[np.float32]]:
        """The k nearest old tokens of every missing token: ids (M, k), -1 where fewer, and cosines (M, k)."""
        ...


class Model(Protocol):
    """The source model as methods see it; `tokenadapt.model.SourceModel` is the real one, loaded on first use."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def tied(self) -> bool:
        """Whether one table serves both roles."""
        ...

    def table(self, role: Role) -> Table:
        """The old table of a role."""
        ...

    def states(self, sequences: Sequence[Sequence[int]], layers: Sequence[float]) -> NDArray[np.float32]:
        """Hidden states at each sequence's last position: (n, len(layers), D); a layer is a relative depth in 0..1."""
        ...

    def states_in_parts(
        self, sequences: Sequence[Sequence[int]], layers: Sequence[float]
    ) -> Iterator[tuple[Ids, NDArray[np.float32]]]:
        """The same, some sequences at a time: their places, and (n, len(layers), D)."""
        ...

    def log_probs(self, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Natural-log probability of each token given those before it: one (len - 1,) array per sequence."""
        ...

    def samples(self) -> list[list[int]]:
        """Texts written by the model itself, as ids of its own tokenizer; seeded, the same at every call."""
        ...

    def final_states(self) -> torch.Tensor:
        """What the head reads, at the positions of `samples()`: (positions, D) float32."""
        ...

    def continued(
        self, prompts: Sequence[Sequence[int]], tokens: int, seed: int = 0
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """For each prompt a text of `tokens` tokens that the model writes after it, and what the head reads there."""
        ...

    def states_under(self, texts: Sequence[Sequence[int]], table: torch.Tensor) -> torch.Tensor:
        """What the head reads at all positions but the last of texts whose ids are rows of `table` (n, D)."""
        ...


class Donor(Protocol):
    """A helper model that has the target tokenizer: `Problem.donor`."""

    @property
    def vocab(self) -> ByteVocab:
        """The donor's tokenizer as bytes; its ids need not be the target's."""
        ...

    def table(self, role: Role) -> Table:
        """The donor's table of a role; a tied donor's table serves both."""
        ...


@dataclass(frozen=True)
class Problem:
    """All that a method may know."""

    source: ByteVocab
    target: ByteVocab
    alignment: Alignment
    segmentation: Segmentation
    role: Role
    table: Table  # (V_old, D) of this role
    model: Model | None = None
    space: Space | None = None
    corpus: Callable[[], Iterator[str]] | None = None
    donor: Donor | None = None
    score: Callable[[str], NDArray[np.float64]] | None = None  # a method's harm on held-out old tokens, by text
    seed: int = 0
    tied: bool = False  # one row will serve both roles
    inputs: Plan | Dense | None = None  # for output rows of two tables: the input rows that were made
    progress: Progress = field(default=SILENT, compare=False)

    def __post_init__(self) -> None:
        if len(self.segmentation.token_length) != len(self.alignment.missing):
            raise ValueError("one run of pieces per missing token")
        top = int(self.alignment.source_id.max(initial=-1))
        if top >= self.table.shape[0]:
            raise ValueError(f"the alignment names old row {top}, the table has {self.table.shape[0]}")

    @property
    def width(self) -> int:
        """D."""
        return self.table.shape[1]

    @property
    def device(self) -> torch.device:
        """Where large products are to be computed: where the model computes."""
        return CPU if self.model is None else precise(self.model.device)

    @property
    def ordinary(self) -> Ids:
        """Old ids of ordinary and byte tokens that have a row, ascending."""
        return ordinary_ids(self.source, self.table.shape[0])


def ordinary_ids(source: ByteVocab, rows: int) -> Ids:
    """Ids of ordinary and byte tokens among the first `rows`, ascending."""
    kinds = source.kind[:rows]
    return np.flatnonzero((kinds == Kind.ORDINARY) | (kinds == Kind.BYTE))


@dataclass(frozen=True)
class Plan:
    """Row of missing token j = scale_j * (sum_i weight_i E[source_id_i] - shift) + shift, i over run j, plus bias_j u.

    An empty run is a row that the method left to the fallback.
    """

    start: Ids  # (M + 1,)
    source_id: Ids  # (N,) old ids, or MEAN
    weight: NDArray[np.float32]  # (N,)
    scale: NDArray[np.float32] | None = None  # (M,)
    shift: NDArray[np.float32] | None = None  # (D,)
    bias: NDArray[np.float32] | None = None  # (M,) logits added along `direction`
    direction: NDArray[np.float32] | None = None  # (D,) u with u.h = 1 over the model's states
    mean: NDArray[np.float32] | None = None  # (D,) the row that MEAN stands for

    def __post_init__(self) -> None:
        if self.start[0] != 0 or self.start[-1] != len(self.source_id) or len(self.source_id) != len(self.weight):
            raise ValueError("start, source_id and weight do not fit together")
        if not np.isfinite(self.weight).all():
            raise ValueError("every weight must be finite")

    @property
    def empty(self) -> NDArray[np.bool_]:
        """(M,) True where the method gave no row."""
        return np.asarray(np.diff(self.start) == 0)


@dataclass(frozen=True)
class Dense:
    """Rows that are no mix of old rows."""

    rows: torch.Tensor  # (M, D) float32
    empty: NDArray[np.bool_] | None = None  # (M,) True where the method gave no row
    primitives: torch.Tensor | None = None  # (k, D) orthonormal: the table is wanted as factors F P too, this is P

    def __post_init__(self) -> None:
        finite = all(bool(torch.isfinite(part).all()) for part in torch.split(self.rows, BLOCK_ROWS))
        if self.rows.dtype != torch.float32 or not finite:
            raise ValueError("dense rows must be finite float32")


def rows_at_once(width: int) -> int:
    """Rows of a block when a table of this width is streamed."""
    return min(BLOCK_ROWS, max(64, BLOCK_NUMBERS // width))


def mix(table: Table, plan: Plan, first: int, last: int) -> torch.Tensor:
    """Rows first..last of a plan in float32: (last - first, D). Gathers only the old rows that these need."""
    begin, end = int(plan.start[first]), int(plan.start[last])
    out = torch.zeros(last - first, table.shape[1], dtype=torch.float32)
    if end > begin:
        wanted, where = np.unique(plan.source_id[begin:end], return_inverse=True)
        old = _named_rows(table, plan, wanted)
        run = plan.start[first : last + 1] - begin
        matrix = csr_array((plan.weight[begin:end], where, run), shape=(last - first, len(wanted)))
        out = torch.from_numpy(matrix @ old.numpy())  # float32 sums in a fixed order
    if plan.scale is not None:
        shift = torch.from_numpy(plan.shift) if plan.shift is not None else torch.zeros(table.shape[1])
        out = torch.from_numpy(plan.scale[first:last])[:, None] * (out - shift) + shift
    if plan.bias is not None and plan.direction is not None:
        out = out + torch.from_numpy(plan.bias[first:last])[:, None] * torch.from_numpy(plan.direction)
    return out


def _named_rows(table: Table, plan: Plan, wanted: Ids) -> torch.Tensor:
    """Float32 rows of distinct ascending ids, MEAN among them: (len(wanted), D)."""
    if not len(wanted) or wanted[0] != MEAN:
        return table.rows(wanted).float()
    if plan.mean is None:
        raise ValueError("the plan names the mean row and does not hold it")
    return torch.cat((torch.from_numpy(plan.mean)[None], table.rows(wanted[1:]).float()))


def missing_rows(table: Table, made: Plan | Dense, first: int, last: int) -> torch.Tensor:
    """Float32 rows of missing tokens first..last, whichever way they were made."""
    return made.rows[first:last] if isinstance(made, Dense) else mix(table, made, first, last)


def build_table(
    table: Table,
    alignment: Alignment,
    made: Plan | Dense,
    unused: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    block_rows: int | None = None,
) -> Iterator[torch.Tensor]:
    """The new table as consecutive row blocks in storage type.

    `unused` is (D,) or (U, D) in the order of `alignment.unused`. Copied rows keep their bits; new rows are summed in
    float32. Memory is one block, whatever the size of the tables.
    """
    dtype, block_rows = dtype or table.dtype, block_rows or rows_at_once(table.shape[1])
    total = len(alignment.how)
    position = np.cumsum(alignment.how == How.MISSING) - 1  # index among missing tokens
    spare = np.cumsum(alignment.how == How.UNUSED) - 1
    for first in range(0, total, block_rows):
        last = min(first + block_rows, total)
        how, source = alignment.how[first:last], alignment.source_id[first:last]
        block = torch.empty(last - first, table.shape[1], dtype=dtype)
        copied = np.flatnonzero(source >= 0)
        if len(copied):
            block[torch.from_numpy(copied)] = table.rows(source[copied]).to(dtype)
        fresh = np.flatnonzero(how == How.MISSING)
        if len(fresh):
            runs = position[first:last][fresh]
            rows = missing_rows(table, made, int(runs[0]), int(runs[-1]) + 1)
            block[torch.from_numpy(fresh)] = _to(rows, dtype)
        idle = np.flatnonzero(how == How.UNUSED)
        if len(idle):
            index = torch.from_numpy(spare[first:last][idle])
            block[torch.from_numpy(idle)] = _to(unused if unused.ndim == 1 else unused[index], dtype)
        yield block


def _to(rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Narrow without overflow: float16 ends at 65,504, where a plain cast would give infinity."""
    limit = torch.finfo(dtype).max
    return rows.clamp(-limit, limit).to(dtype)
