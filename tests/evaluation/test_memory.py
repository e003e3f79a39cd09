"""Logits of a large vocabulary are never all held at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json
import numpy as np, torch
from transformers import LlamaConfig, LlamaForCausalLM
from tokenadapt.evaluation import Scorer
from tokenadapt.evaluation.batches import Batch

def peak():  # ru_maxrss would count what the parent process holds, too
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

torch.set_num_threads(2)
V, T = 262_144, {tokens}
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=V, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
    max_position_embeddings=T, tie_word_embeddings=True,
))
scorer = Scorer(model)
before = peak()
ids = np.arange(T)[None] * 61 % V
found = scorer.bits(Batch(ids, np.array([T]), np.arange(T), np.arange(T)), ids[0])
after = peak()
print(json.dumps([before, after, float(found.mean())]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc")
def test_a_vocabulary_of_256k_at_4096_tokens_fits_in_two_gigabytes():
    line = [sys.executable, "-c", PROGRAM.format(tokens=4096)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=True)
    before, after, bits = json.loads(done.stdout)
    assert after < 2 * 1024 * 1024  # KiB, the whole process
    assert after - before < 400 * 1024  # beyond the model; whole logits would be 4 GiB
    assert 17 < bits < 19
