"""The parts of the loss sum to the whole, and bytes get their own token's bits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.conftest import Text
from tokenadapt.evaluation import Encoded
from tokenadapt.evaluation.texts import keep
from tokenadapt.evaluation.where import BYTE_CLASSES, Splits, byte_classes, spread
from tokenadapt.evaluation.worst import Tally
from tokenadapt.vocab.types import How


def encoded(*runs: list[tuple[int, int]], size: tuple[int, ...] | None = None) -> Encoded:
    """Documents as (id, bytes) pairs."""
    flat = [pair for run in runs for pair in run]
    ids, nbytes = (np.array([pair[place] for pair in flat], dtype=np.int64) for place in (0, 1))
    start = np.concatenate(([0], np.cumsum([len(run) for run in runs]))).astype(np.int64)
    total = np.array(size or [sum(pair[1] for pair in run) for run in runs], dtype=np.int64)
    return Encoded(ids, start, nbytes, np.ones(len(runs), dtype=bool), total)


def test_bits_are_shared_by_the_bytes_of_their_token():
    made = encoded([(1, 2), (2, 1)], [(3, 1)])
    assert spread(made, np.array([4.0, 3.0, 1.0])).tolist() == [2, 2, 3, 1]


def test_a_token_without_bytes_passes_its_bits_on_within_its_document():
    made = encoded([(1, 0), (2, 2), (3, 0)], [(4, 1)])
    assert spread(made, np.array([1.0, 2.0, 3.0, 7.0])).tolist() == [3, 3, 7]


def test_a_text_without_tokens_costs_nothing():
    made = encoded([(1, 1)], [], [(2, 2)], size=(1, 3, 2))
    assert spread(made, np.array([5.0, 4.0])).tolist() == [5, 0, 0, 0, 2, 2]


def test_every_byte_has_the_class_of_its_character():
    found = [BYTE_CLASSES[code] for code in byte_classes("a1 \n.é你👍")]
    assert found[:5] == ["letter", "digit", "space", "newline", "symbol"]
    assert found[5:] == ["letter beyond ASCII"] * 5 + ["other beyond ASCII"] * 4


def test_parts_sum_to_the_whole():
    how = np.array([How.COPIED, How.MISSING, How.SPECIAL], dtype=np.uint8)
    splits = Splits(how)
    made = encoded([(0, 3), (1, 2), (9, 1)], [(1, 70)])
    splits.add(["a1 é.", "x" * 70], made, np.array([1.0, 2.0, 4.0, 8.0]))
    parts = splits.parts()
    assert {part.name: (part.bits, part.bytes, part.tokens) for part in parts["rows"]} == {
        "copied": (1, 3, 1),
        "new": (10, 72, 2),
        "unused": (4, 1, 1),  # beyond the plan
    }
    for split in parts.values():
        assert sum(part.bits for part in split) == pytest.approx(15)
        assert sum(part.bytes for part in split) == 76
    assert [part.name for part in parts["position"]] == ["0 to 64", "64 to 256"]


def test_without_a_plan_there_is_no_split_by_rows():
    splits = Splits(None)
    splits.add(["ab"], encoded([(0, 2)]), np.array([1.0]))
    assert set(splits.parts()) == {"bytes", "position"}


def test_the_worst_token_comes_with_its_dearest_place():
    texts = keep([Text("aé a"), Text("\tbab")])
    tally = Tally(5)
    tally.add(range(2), encoded([(0, 1), (1, 2), (0, 2)], [(2, 2), (0, 1), (2, 1)]), np.array([1, 9, 1, 2, 3, 8.0]))
    spelled = (b"a", "é".encode(), b"b", None, None)
    first, second = tally.worst(2, texts, spelled, ["copied", "new", "new", "unused", "unused"])
    assert (first.token, first.how, first.count, first.bits) == ("é", "new", 1, 9)
    assert first.example == ("a", "é", " a")
    assert (second.token, second.count, second.example) == ("b", 2, ("\\tba", "b", ""))
    assert first.excess_bits == pytest.approx(9 - 2 * 24 / 9)


def test_examples_survive_a_second_pool():
    texts = keep([Text("aa"), Text("ba")])
    tally = Tally(2)
    tally.add(range(1), encoded([(0, 1), (0, 1)]), np.array([1.0, 2.0]))
    tally.add(range(1, 2), encoded([(1, 1), (0, 1)]), np.array([1.0, 5.0]))
    (worst,) = tally.worst(1, texts, (b"a", b"b"), None)
    assert worst.example == ("b", "a", "")
    assert worst.count == 3


def test_an_example_never_begins_or_ends_inside_a_character():
    raw = "né" * 60
    texts = keep([Text(raw)])
    tally = Tally(1)
    size = len(raw.encode())
    for shift in (0, 1):
        tally.add(range(1), encoded([(0, 90 + shift), (0, 1), (0, size - 91 - shift)]), np.array([0, 5.0 + shift, 0]))
        (worst,) = tally.worst(1, texts, (b"n",), None)
        assert worst.example[0].lstrip("né") in ("", "\\xc3")  # the token itself may be half a character
        assert "\\" not in worst.example[2].removeprefix("\\xa9")
