"""Windows: every token scored once, never more context than asked, and the rule of lm-evaluation-harness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenadapt.errors import RequestError
from tokenadapt.evaluation import Encoded, ScoreOptions
from tokenadapt.evaluation.batches import Budget, Frame, arrange
from tokenadapt.evaluation.windows import cut_windows, masked_windows


def documents(*sizes: list[int]) -> Encoded:
    flat = [size for run in sizes for size in run]
    start = np.concatenate(([0], np.cumsum([len(run) for run in sizes]))).astype(np.int64)
    whole = np.ones(len(sizes), dtype=bool)
    total = np.array([sum(run) for run in sizes], dtype=np.int64)
    return Encoded(np.arange(len(flat)), start, np.array(flat, dtype=np.int64), whole, total)


def rows(windows) -> list[tuple[int, int, int]]:
    return list(zip(windows.begin.tolist(), windows.first.tolist(), windows.end.tolist(), strict=True))


def test_a_short_document_is_one_window():
    made = cut_windows(documents([1] * 5, [], [1] * 3), ScoreOptions(context=8), 64, 1)
    assert rows(made) == [(0, 0, 5), (5, 5, 8)]
    assert made.framed.all()


def test_overlap_scores_a_stride_with_what_came_before():
    made = cut_windows(documents([1] * 10), ScoreOptions(context=4, stride=2), 64, 0)
    # Four tokens are read, a fifth is predicted.
    assert rows(made) == [(0, 0, 5), (2, 5, 7), (4, 7, 9), (5, 9, 10)]


def test_bytes_set_the_window_where_asked():
    sizes = [4, 4, 1, 1, 1, 1, 4, 4]
    made = cut_windows(documents(sizes), ScoreOptions(context_bytes=8, stride=4), 64, 0)
    assert rows(made) == [(0, 0, 2), (1, 2, 6), (2, 6, 7), (6, 7, 8)]


def test_a_window_that_the_model_cannot_hold_is_cut_and_counted():
    made = cut_windows(documents([1] * 10), ScoreOptions(context_bytes=8), 3, 0)
    assert made.clipped
    assert (made.end - made.begin).max() <= 4
    assert cut_windows(documents([1] * 10), ScoreOptions(context_bytes=8), 64, 0).clipped == 0


def test_disjoint_windows_begin_with_the_token_before():
    made = cut_windows(documents([1] * 9), ScoreOptions(context=4, windows="disjoint"), 64, 1)
    assert rows(made) == [(0, 0, 4), (3, 4, 8), (4, 8, 9)]  # the last reaches back
    assert made.framed.tolist() == [True, False, False]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9, 30])
def test_disjoint_windows_are_the_harness_s(count):
    utils = pytest.importorskip("lm_eval.utils")
    ids = list(range(100, 100 + count))
    theirs = map(utils.make_disjoint_window, utils.get_rolling_token_windows(ids, -1, 4, 1))
    made = cut_windows(documents([1] * count), ScoreOptions(context=4, windows="disjoint"), 64, 1)
    ours = [
        (([-1] if framed else []) + ids[begin : end - 1], ids[first:end])
        for (begin, first, end), framed in zip(rows(made), made.framed, strict=True)
    ]
    assert ours == [(list(read) + list(scored)[:-1], list(scored)) for read, scored in theirs]


sizes = st.lists(st.lists(st.integers(0, 5), max_size=40), max_size=4)


@settings(max_examples=80, deadline=None)
@given(
    sizes, st.integers(2, 12), st.integers(1, 12), st.booleans(), st.sampled_from(["overlap", "disjoint"]),
    st.integers(0, 1), st.sampled_from(["causal", "masked"]),
)  # fmt: skip
def test_every_token_is_scored_once_within_the_budget(runs, context, stride, in_bytes, rule, frame, kind):
    encoded = documents(*runs)
    limit = {"context_bytes": context} if in_bytes else {"context": context}
    step = None if rule == "disjoint" else min(stride, context)
    try:
        options = ScoreOptions(kind=kind, windows=rule, stride=step, **limit)
        made = cut_windows(encoded, options, 14, frame)
    except RequestError:
        assert context < 3 or (in_bytes and rule == "disjoint")  # a frame leaves no room
        return
    scored = [token for _, first, end in rows(made) for token in range(first, end)]
    assert sorted(scored) == list(range(len(encoded.ids)))
    room = 14 - frame if in_bytes else context - frame
    assert all(end - begin <= room + (kind == "causal") + (rule == "disjoint") for begin, _, end in rows(made))
    document = encoded.document_of()
    for begin, first, end in rows(made):
        assert len(set(document[begin:end])) == 1
        assert begin < first or encoded.start[document[begin]] == begin
    if kind == "masked":
        assert sorted(masked_windows(made).first.tolist()) == list(range(len(encoded.ids)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"context": 1}, "one token"),
        ({"context": 8, "stride": 9}, "left out"),
        ({"stride": 4, "windows": "disjoint"}, "no stride"),
        ({"context_bytes": 4, "windows": "disjoint"}, "in tokens"),
        ({"windows": "sliding"}, "sliding"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
    ],
)
def test_wrong_options_are_refused(wrong, said):
    with pytest.raises(RequestError, match=said):
        ScoreOptions(**wrong)


def test_more_context_than_positions_is_refused():
    with pytest.raises(RequestError, match="64 positions"):
        cut_windows(documents([1] * 5), ScoreOptions(context=65), 64, 0)


def grouped(lengths: list[int], budget: Budget) -> list[list[int]]:
    encoded = documents(*([1] * length for length in lengths))
    made = cut_windows(encoded, ScoreOptions(context=60), 64, 0)
    return [[lengths[index] for index in members] for members in arrange(encoded, made, Frame(), budget)]


def test_batches_are_alike_in_length_and_within_the_budget():
    assert grouped([3, 9, 9, 8, 2, 30], Budget(30, 2)) == [[30], [9, 9, 8], [3, 2]]
    assert grouped([9] * 5, Budget(16, 99)) == [[9, 9], [9, 9], [9]]
    assert grouped([50, 40], Budget(1, 0)) == [[50], [40]]
    assert grouped([], Budget(10, 10)) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 60), max_size=20), st.integers(1, 200), st.integers(0, 50))
def test_every_window_is_in_one_batch(lengths, tokens, padding):
    found = grouped(lengths, Budget(tokens, padding))
    assert sorted(length for members in found for length in members) == sorted(lengths)
    for members in found:
        assert len(members) == 1 or len(members) * (max(members) - 1) <= tokens
        assert sum(max(members) - length for length in members) <= padding
