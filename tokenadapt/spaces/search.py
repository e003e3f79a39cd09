"""Exact inner-product search: FAISS where it is sound, torch elsewhere; the same candidates up to ties."""

from __future__ import annotations

import sys
from typing import Any, Final, Protocol, cast

import numpy as np
import torch

from tokenadapt.errors import RequestError
from tokenadapt.spaces.integers import LEAST_WORK, integers_are_exact, integers_pay
from tokenadapt.spaces.options import Backend, Matrix
from tokenadapt.vocab.types import Ids

TORCH_BLOCK: Final = 65536  # candidates scored at once: bounds the score matrix


class Search(Protocol):
    """Finds the rows of a matrix with the largest inner products."""

    def top(self, queries: Matrix, k: int) -> tuple[Matrix, Ids]:
        """Products and row numbers of the k best rows for each query: (n, k). k is at most the number of rows."""
        ...


class FaissSearch:
    """FAISS flat inner-product index, on CPU or on one GPU."""

    def __init__(self, matrix: Matrix, gpu: int | None = None) -> None:
        import faiss

        self.index: Any = faiss.IndexFlatIP(matrix.shape[1])
        if gpu is not None:
            self.index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), gpu, self.index)
        self.index.add(np.ascontiguousarray(matrix))

    def top(self, queries: Matrix, k: int) -> tuple[Matrix, Ids]:
        """Products and row numbers of the k best rows for each query."""
        score, row = self.index.search(np.ascontiguousarray(queries), k)
        return np.asarray(score, dtype=np.float32), np.asarray(row, dtype=np.int64)


class TorchSearch:
    """A product and a running top-k, block by block, on any torch device."""

    def __init__(self, matrix: Matrix, device: str = "cpu") -> None:
        self.matrix = torch.from_numpy(np.ascontiguousarray(matrix)).to(device)

    @torch.inference_mode()
    def top(self, queries: Matrix, k: int) -> tuple[Matrix, Ids]:
        """Products and row numbers of the k best rows for each query."""
        asked = torch.from_numpy(np.ascontiguousarray(queries)).to(self.matrix.device)
        best = where = None
        for first in range(0, len(self.matrix), TORCH_BLOCK):
            scores = asked @ self.matrix[first : first + TORCH_BLOCK].T
            value, index = scores.topk(min(k, scores.shape[1]), dim=1)
            index += first
            if best is not None and where is not None:
                value, index = torch.cat((best, value), 1), torch.cat((where, index), 1)
                value, order = value.topk(min(k, value.shape[1]), dim=1)
                index = index.gather(1, order)
            best, where = value, index
        score, row = cast(torch.Tensor, best).cpu().numpy(), cast(torch.Tensor, where).cpu().numpy()
        return np.asarray(score, dtype=np.float32), np.asarray(row, dtype=np.int64)


def faiss_gpus() -> int:
    """GPUs that the installed FAISS can use; 0 for the CPU build."""
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def choose_backend(wanted: Backend = "auto") -> Backend:
    """The backend that fits this machine.

    On macOS the wheels of torch and FAISS bring one OpenMP runtime each, and a process that runs both may hang or
    crash: torch alone is used there, and FAISS is never imported.
    """
    if wanted != "auto":
        return wanted
    if sys.platform == "darwin":
        return "torch"
    try:
        if faiss_gpus():
            return "faiss-gpu"
    except ImportError:
        return "torch-cuda" if torch.cuda.is_available() else "torch"
    return "torch-cuda" if torch.cuda.is_available() else "faiss"


def uses_integers(wanted: Backend, width: int, products: int) -> bool:
    """Whether 8-bit integers shall search first: on request, or where a CPU would search and they pay.

    Raises RequestError where they are asked for and this processor cannot.
    """
    if wanted == "int8" and not integers_are_exact():
        raise RequestError("This processor has no exact 8-bit products.", "Leave the choice to the program.")
    if wanted != "auto":
        return wanted == "int8"
    return products >= LEAST_WORK and choose_backend() in ("faiss", "torch") and integers_pay(width)


def open_search(matrix: Matrix, wanted: Backend = "auto") -> Search:
    """A search over the rows of `matrix`, (n, d) float32."""
    backend = choose_backend(wanted)
    if backend == "faiss":
        return FaissSearch(matrix)
    if backend == "faiss-gpu":
        if not faiss_gpus():
            raise RequestError("The installed FAISS has no GPU support.", "Leave the choice to the program.")
        return FaissSearch(matrix, gpu=0)
    if backend == "torch-cuda" and not torch.cuda.is_available():
        raise RequestError("There is no CUDA device for the neighbour search.", "Leave the choice to the program.")
    return TorchSearch(matrix, "cuda" if backend == "torch-cuda" else "cpu")
