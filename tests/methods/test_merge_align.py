"""`merge` and `align` against plain recursion and plain loops, and examples by hand."""

import numpy as np
import pytest

from tests.methods.problems import NEW, OLD, TEXTS, byte_vocab, make_problem
from tests.methods.test_first import terms
from tokenadapt.errors import RequestError
from tokenadapt.methods import Chosen
from tokenadapt.methods.make import run
from tokenadapt.methods.running import edges, texts_of
from tokenadapt.plan import Problem


def plain_merge(problem, index):
    """{old id: weight} by recursion over the merges, or None."""
    source = int(problem.alignment.source_id[index])
    if source >= 0:
        return {source: 1.0}
    found = []
    for left, right in problem.target.merges.tolist():
        if problem.target.text[left] + problem.target.text[right] == problem.target.text[index]:
            sides = [plain_merge(problem, side) for side in (left, right)]
            if None not in sides:
                found.append(sides)
    if not found:
        return None
    out = {}
    for sides in found:
        for side in sides:
            for old, weight in side.items():
                out[old] = out.get(old, 0) + weight / 2 / len(found)
    return out


def test_merge_equals_plain_recursion():
    old = (*[bytes([c]) for c in b"therinsg"], b"th", b"ing", b"er")
    new = (*[bytes([c]) for c in b"therins"], b"th", b"the", b"ther", b"there", b"er", b"here", b"in", b"theres", b"gg")
    problem = make_problem(old=old, new=new)
    plan = run(problem, Chosen("merge"))
    for j, index in enumerate(problem.alignment.missing):
        want = plain_merge(problem, int(index))
        assert terms(plan, j) == (pytest.approx(want) if want else {})
    assert new[problem.alignment.missing[-1]] == b"gg"
    assert plan.empty[-1]


def test_merge_by_hand():
    """abc = ab + c and ab = a + b: a and b take a quarter each, c a half."""
    problem = make_problem(old=(b"a", b"b", b"c"), new=(b"a", b"b", b"c", b"ab", b"abc"))
    plan = run(problem, Chosen("merge"))
    assert terms(plan, 0) == pytest.approx({0: 0.5, 1: 0.5})
    assert terms(plan, 1) == pytest.approx({0: 0.25, 1: 0.25, 2: 0.5})


def test_a_tokenizer_without_merges_is_refused():
    problem = make_problem()
    object.__setattr__(problem.target, "merges", None)
    with pytest.raises(RequestError, match="no merges"):
        run(problem, Chosen("merge"))


def plain_align(problem, texts):
    """{missing index: {old id: weight}} by loops over characters' places."""
    place = {int(index): j for j, index in enumerate(problem.alignment.missing)}
    sums, times = {}, {}

    def spans(vocab, text):
        at, out = 0, []
        for index in vocab.encode([text])[0]:
            out.append((index, at, at + len(vocab.token_bytes[index])))
            at = out[-1][2]
        return out if at == len(text.encode()) else []

    for text in texts:
        new, old = spans(problem.target, text), spans(problem.source, text)
        for index, begin, end in new if old else []:
            if index not in place:
                continue
            inside = [i for i, a, b in old if begin <= a and b <= end] or [
                i for i, a, b in old if a <= begin and end <= b
            ]
            if inside:
                j = place[index]
                times[j] = times.get(j, 0) + 1
                for i in inside:
                    sums.setdefault(j, {})
                    sums[j][i] = sums[j].get(i, 0) + 1 / len(inside)
    return {j: {i: w / times[j] for i, w in run.items()} for j, run in sums.items()}


OTHER = (None, *[bytes([c]) for c in b" abcdefgh"], b"bc", b"abcd", b"ef", b"h a")
MINE = (None, *[bytes([c]) for c in b" adh"], b"ab", b"cd", b"bcd", b"efg", b"e", b"f", b"g", b"c", b"b", b" abc")
LINES = ("abcd efgh abc", "bcd bcd", "abab cd hefg abcd", "h ah abcdefgh", "cd abcd", "efg efgh")


@pytest.mark.parametrize("terms_held", [1, 1 << 22])
def test_align_equals_plain_loops(monkeypatch, terms_held):
    monkeypatch.setattr("tokenadapt.methods.align.TERMS", terms_held)
    problem = make_problem(old=OTHER, new=MINE, corpus=lambda: iter(LINES))
    plan = run(problem, Chosen("align"))
    want = plain_align(problem, LINES)
    assert len(want) >= 4
    for j in range(len(problem.alignment.missing)):
        assert terms(plan, j) == pytest.approx(want.get(j, {}))


def test_align_by_hand():
    """`there` stands twice as the + re; `rein` is re + in; the text with no UTF-8 byte is not spelled back."""
    problem = make_problem(corpus=lambda: iter(("therethere", "rein")))
    plan = run(problem, Chosen("align"))
    names = [NEW[i] for i in problem.alignment.missing]
    assert terms(plan, names.index(b"there")) == pytest.approx({OLD.index(b"the"): 0.5, OLD.index(b"re"): 0.5})
    assert terms(plan, names.index(b"rein")) == pytest.approx({OLD.index(b"re"): 0.5, OLD.index(b"in"): 0.5})
    assert plan.empty.sum() == len(names) - 2


def test_the_number_of_texts_is_a_bound():
    problem = make_problem(corpus=lambda: iter(("there", "rein")))
    assert (~run(problem, Chosen("align", {"texts": 1})).empty).sum() == 1


def test_texts_that_a_tokenizer_changes_are_passed_over(caplog):
    problem = make_problem(corpus=lambda: iter((*TEXTS, "there")))
    run(problem, Chosen("align"))
    assert "lines were passed over" in caplog.text


def test_a_line_that_a_tokenizer_changes_does_not_cost_its_document():
    """The ends of line stay with the line before them."""
    old, new = (b"re", b"in", b"\n", b"\n\n"), (b"rein", b"re", b"in\n\n", b"\n")
    problem = make_problem(old=old, new=new, corpus=lambda: iter(("rein\nrein?\nrein\n\n", "\n\nrein")))
    names = [new[i] for i in problem.alignment.missing]
    seen = [text for batch in texts_of(problem, 9) for text in batch]
    assert seen == ["rein\n", "rein?\n", "rein\n\n", "\n\n", "rein"]
    plan = run(problem, Chosen("align"))
    assert terms(plan, names.index(b"rein")) == pytest.approx({0: 0.5, 1: 0.5})


def test_the_space_that_a_tokenizer_puts_first_takes_no_room():
    vocab = byte_vocab((b" the", b"re", b" "))
    assert edges(vocab, [0, 1], b"there").tolist() == [0, 3, 5]
    assert edges(vocab, [0, 1], b" there").tolist() == [0, 4, 6]
    assert edges(vocab, [2, 0], b" the").tolist() == [0, 0, 4]
    assert edges(vocab, [1], b"there") is None
    assert edges(byte_vocab((None,)), [0], b"x") is None


def test_no_corpus_is_said_plainly():
    with pytest.raises(RequestError, match="align needs text"):
        run(make_problem(), Chosen("align"))
    assert Problem.__dataclass_fields__["corpus"].default is None
    assert np.isfinite(run(make_problem(corpus=lambda: iter(())), Chosen("align")).weight).all()
