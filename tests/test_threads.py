"""One thread or several: the same bits, the same order, nothing left changed behind.

Run: scripts/test tests/test_threads.py -m "slow or not slow"
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from tokenadapt import threads
from tokenadapt.prefixes import Reader
from tokenadapt.threads import alone, side_by_side


@pytest.fixture(params=[1, 2, 5])
def count(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def blas():
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


def test_alone_is_one_thread_and_leaves_as_many_as_there_were(count):
    had = blas()
    with alone():
        with alone():
            pass
        assert torch.get_num_threads() == 1
        assert blas() <= {1}
    assert torch.get_num_threads() == count
    assert blas() == had


def test_what_is_made_comes_in_order_by_several_threads(count):
    meeting = threading.Barrier(min(count, threads.MOST), timeout=20)  # met only by all of them at once

    def work(item):
        meeting.wait()
        return item, torch.get_num_threads(), torch.is_grad_enabled()

    total = 4 * min(count, threads.MOST)
    assert list(side_by_side(work, range(total))) == [(item, 1, False) for item in range(total)]
    assert torch.get_num_threads() == count


def test_on_an_accelerator_one_after_the_other(count):
    main = threading.get_ident()
    made = side_by_side(lambda _: threading.get_ident(), range(5), torch.device("meta"))
    assert set(made) == {main}


def test_items_are_asked_for_little_ahead(count):
    asked = []

    def items():
        for item in range(100):
            asked.append(item)
            yield item

    for done, _ in enumerate(side_by_side(lambda item: item, items())):
        assert len(asked) <= done + 1 + count


def test_a_failure_is_the_callers_and_ends_the_work(count):
    begun = []

    def work(item):
        begun.append(item)
        if item == 3:
            raise ValueError("three")
        return item

    with pytest.raises(ValueError, match="three"):
        list(side_by_side(work, range(1000)))
    assert len(begun) < 20
    assert torch.get_num_threads() == count


@pytest.mark.parametrize("count", [2, 5], indirect=True)
@pytest.mark.usefixtures("count")
def test_long_work_ends_when_nobody_waits_for_it():
    steps = []

    def work(item):
        for step in range(2000):
            threads.stop_if_ended()
            time.sleep(0.01)
            steps.append(step)
            if item == 1 and step == 3:
                raise KeyboardInterrupt  # as by Ctrl-C, though that comes in the main thread
        return item

    with pytest.raises(KeyboardInterrupt):
        list(side_by_side(work, [1, 2, 3]))
    assert max(steps) < 1900


def test_states_of_few_strings_have_the_same_bits():
    """Seven rows by a matrix: the products whose last bits follow the number of threads."""
    from transformers import AutoModelForCausalLM

    from tokenadapt.locate import POCKET

    model = AutoModelForCausalLM.from_pretrained(POCKET, dtype=torch.float32).eval()
    drawn = np.random.default_rng(0)
    strings = [[0, *drawn.integers(5, 1500, size).tolist()] for size in (1, 3, 3, 7, 9, 2, 5)]
    found, before = [], torch.get_num_threads()
    try:
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            found.append(torch.cat([states for _, states in Reader(model.base_model, [1, 4]).read(strings)]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


TRAIN = """
import sysconfig, sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
made = Tokenizer(models.BPE())
made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
names = [sysconfig.get_paths()["stdlib"] + "/" + name for name in ("argparse.py", "typing.py", "inspect.py")]
made.train(names, trainers.BpeTrainer(vocab_size=3000, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"]))
made.save(sys.argv[1])
"""


@pytest.mark.slow
def test_a_checkpoint_by_the_model_itself_is_the_same_with_one_thread_and_with_three(tmp_path):
    subprocess.run([sys.executable, "-c", TRAIN, str(tmp_path / "tokenizer.json")], check=True)
    made = []
    for number in ("1", "3"):
        out = tmp_path / f"by-{number}"
        words = ("transplant", "pocket", tmp_path / "tokenizer.json", out, "--untie", "--method", "stacked:texts=96")
        said = subprocess.run(
            [sys.executable, "-m", "tokenadapt", *map(str, words)],
            env={**os.environ, "OMP_NUM_THREADS": number, "TOKENADAPT_CACHE": str(tmp_path / f"cache-{number}")},
            capture_output=True,
            text=True,
        )
        assert said.returncode == 0, said.stderr
        assert "after the correction" in said.stdout + said.stderr
        made.append(hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest())
    assert made[0] == made[1]
