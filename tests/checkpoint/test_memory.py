"""Memory is set by blocks of rows: neither a table nor a layer is ever held."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tokenadapt.checkpoint.shards import make_header
from tokenadapt.checkpoint.source import open_source
from tokenadapt.errors import TokenAdaptError

ROWS, WIDTH = 64_000, 1024  # 131 MB in bfloat16
PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from tokenadapt.checkpoint import tables
from tokenadapt.checkpoint.source import open_source
from tokenadapt.checkpoint.writer import write_checkpoint_tensors
from tokenadapt.checkpoint.written import NewTable
def used():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
torch.set_num_threads(1)
source, out = open_source(Path(sys.argv[1])), Path(sys.argv[2])
table, before = source.table("input"), used()
def blocks():
    for first in range(0, source.rows, 4096):
        yield table.rows(np.arange(first, min(first + 4096, source.rows))[::-1])
tables.check_finite(table, "table")
write_checkpoint_tensors(source, out, {"input": NewTable(table.shape, table.dtype, blocks)}, {})
print(used() - before)
"""


@pytest.fixture
def sparse(tmp_path):
    """A checkpoint whose numbers are all zero and take no room on disk: a table, and two matrices."""
    made = tmp_path / "in"
    made.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": ROWS, "hidden_size": WIDTH,
        "intermediate_size": 16384, "num_hidden_layers": 1, "num_attention_heads": 8, "tie_word_embeddings": True,
    }  # fmt: skip
    (made / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": (ROWS, WIDTH)}
    shapes |= {f"model.layers.0.mlp.{name}_proj.weight": (16384, WIDTH) for name in ("gate", "up")}
    tensors = [(name, "BF16", shape, 2 * math.prod(shape)) for name, shape in shapes.items()]
    with (made / "model.safetensors").open("wb") as file:
        file.write(make_header(tensors, {}))
        file.truncate(file.tell() + sum(tensor[3] for tensor in tensors))
    return made


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read through a POSIX call")
def test_a_table_is_rewritten_in_less_memory_than_it_has(sparse, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(sparse), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert int(done.stdout) < 110e6
    assert (out / "model.safetensors").stat().st_size == (sparse / "model.safetensors").stat().st_size


def test_rows_are_those_of_the_file_in_any_order(sparse):
    source = open_source(sparse)
    ref = source.tables["input"]
    drawn = np.random.default_rng(0).integers(0, 1 << 15, (ROWS, WIDTH), dtype=np.int16)
    with source.path_of(ref).open("r+b") as file:
        file.seek(ref.offset)
        file.write(drawn.tobytes())
    table = source.table("input")
    for wanted in ([], [0], [ROWS - 1], [5, 6, 7, 9, 3, 3, 4], [ROWS - 1, 0]):
        ids = np.array(wanted, dtype=np.int64)
        assert np.array_equal(table.rows(ids).view(torch.int16).numpy(), drawn[ids])
    for ids in ([-1], [0, ROWS]):
        with pytest.raises(IndexError):
            table.rows(np.array(ids))
    os.truncate(source.path_of(ref), ref.offset + 10)
    with pytest.raises(TokenAdaptError, match="ends before"):
        table.rows(np.array([0]))
