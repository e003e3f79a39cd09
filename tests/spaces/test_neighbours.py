from __future__ import annotations

import os
import subprocess
import sys

import faiss
import numpy as np
import pytest
import torch

from tests.spaces.conftest import make_vocab
from tokenadapt.errors import RequestError
from tokenadapt.spaces.candidates import choose_candidates
from tokenadapt.spaces.integers import integers_are_exact
from tokenadapt.spaces.neighbours import nearest as find_nearest
from tokenadapt.spaces.options import unit
from tokenadapt.spaces.search import choose_backend, faiss_gpus, open_search
from tokenadapt.vocab.types import Kind

NONE = np.zeros(0, dtype=np.int64)
BACKENDS = ["faiss", "torch"]
if integers_are_exact():
    BACKENDS.append("int8")
if torch.cuda.is_available():
    BACKENDS.append("torch-cuda")
if faiss_gpus():
    BACKENDS.append("faiss-gpu")


def oracle(vectors, ids, asked, barred, k):
    """All cosines in float64, sorted by (cosine, id)."""
    score = (asked.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    out = np.full((len(asked), k), -1)
    for q in range(len(asked)):
        order = sorted(range(len(ids)), key=lambda c: (-score[q, c], ids[c]))
        best = [ids[c] for c in order if ids[c] != barred[q]][:k]
        out[q, : len(best)] = best
    return out


def nearest(ids, vectors, asked, barred, k, **options):
    row = {int(name): number for number, name in enumerate(ids)}
    return find_nearest(
        ids, lambda wanted: vectors[[row[int(i)] for i in wanted]], lambda index: asked[index], barred, k, **options
    )


def world(n=500, m=300, d=16, seed=0):
    rng = np.random.default_rng(seed)
    vectors, asked = unit(rng.normal(size=(n, d))), unit(rng.normal(size=(m, d)))
    return np.sort(rng.choice(4 * n, n, replace=False)).astype(np.int64), vectors, asked


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("chunk_bytes", [1 << 20, 1, 64 * 130])
def test_neighbours_equal_the_oracle(backend, k, chunk_bytes):
    names, vectors, asked = world()
    barred = np.full(len(asked), -1)
    barred[::3] = oracle(vectors, names, asked, barred, 1)[::3, 0]
    asked[7] = 0
    ids, cosines = nearest(names, vectors, asked, barred, k, backend=backend, chunk_bytes=chunk_bytes)
    expected = oracle(vectors, names, asked, barred, k)
    expected[7] = -1
    assert np.array_equal(ids, expected)
    row = {name: number for number, name in enumerate(names)}
    for q in (0, 100, 299):
        np.testing.assert_allclose(cosines[q], [asked[q] @ vectors[row[i]] for i in ids[q]], atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_go_to_the_lowest_id(backend):
    axis = unit(np.array([[1, 1], [1, -1], [-1, -1], [1, 1.0000001]]))
    ids, cosines = nearest(np.array([4, 7, 9, 11]), axis, unit(np.array([[1, 0]])), np.array([-1]), 3, backend=backend)
    assert ids.tolist() == [[4, 7, 11]]
    np.testing.assert_allclose(cosines, np.full((1, 3), 0.5**0.5), atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fewer_candidates_than_k_and_queries_without_a_vector(backend):
    asked = np.array([[0, 1], [0, 0], [1, 0]], dtype=np.float32)
    barred = np.array([-1, -1, 2])
    ids, cosines = nearest(np.array([2, 5]), unit(np.eye(2)), asked, barred, 3, backend=backend)
    assert ids.tolist() == [[5, 2, -1], [-1, -1, -1], [5, -1, -1]]
    assert cosines.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_no_candidates_and_no_queries():
    ids, cosines = nearest(NONE, np.zeros((0, 4)), np.ones((1, 4), np.float32), np.array([-1]), 2)
    assert ids.tolist() == [[-1, -1]]
    assert cosines.tolist() == [[0, 0]]
    ids, _ = nearest(*world()[:2], np.zeros((0, 16), np.float32), NONE, 2)
    assert ids.shape == (0, 2)


def test_candidates_are_ordinary_trained_told_apart_and_counted():
    tokens = [None, b"dog", b" dog", b"cat", b"A", b"glitch", b"  ", b"beyond the table"]
    kinds = [Kind.SPECIAL, *[Kind.ORDINARY] * 3, Kind.BYTE, *[Kind.ORDINARY] * 3]
    vectors = np.array([[1, 1], [1, 0], [1, 0], [0, 1], [1, 2], [2, 1], [0, 0], [3, 1]], dtype=np.float32)
    made = choose_candidates(make_vocab(tokens, kinds), 7, lambda ids: vectors[ids], np.array([5]), block=2)
    assert made.ids.tolist() == [1, 3]  # ` dog` has the vector of `dog`
    assert list(made.left_out.values()) == [3, 1, 1, 1]
    assert len(made.ids) + sum(made.left_out.values()) == len(tokens)
    assert made.describe() == (
        "neighbours: 2 candidates; left out: 3 special, byte or added, 1 under-trained, "
        "1 without a vector, 1 with another's vector"
    )


def test_the_same_neighbours_with_one_thread_and_with_four():
    program = (
        "import numpy as np, hashlib\n"
        "from tests.spaces.test_neighbours import BACKENDS, nearest, world\n"
        "given = world(4000, 700, 48)\n"
        "for backend in BACKENDS:\n"
        "    ids, cos = nearest(*given, np.full(700, -1), 5, backend=backend)\n"
        "    print(hashlib.sha256(ids.tobytes() + cos.tobytes()).hexdigest())"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for threads in ("1", "4")
    ]
    assert len({*said[0], *said[1]}) == 1


def test_the_backend_follows_the_machine(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert choose_backend() == "torch"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    assert choose_backend() == "faiss-gpu"
    monkeypatch.delattr(faiss, "StandardGpuResources")
    assert choose_backend() == "faiss"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_backend() == "torch-cuda"
    assert choose_backend("torch") == "torch"
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert choose_backend() == "torch-cuda"


def test_a_backend_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RequestError, match="CUDA"):
        open_search(np.eye(2, dtype=np.float32), "torch-cuda")
