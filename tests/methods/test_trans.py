"""`trans`: word pairs to token pairs to rows, worked by hand, and smoothing as published."""

import pytest

from tests.methods.problems import make_problem
from tests.methods.test_first import terms
from tokenadapt.errors import MissingExtraError, RequestError
from tokenadapt.methods import Chosen
from tokenadapt.methods.make import run
from tokenadapt.methods.trans import inside, longer, shares
from tokenadapt.methods.translations import count_links, read_table

OLD = (b"dog", b" dog", b"house", b" ", b"ho", b"use", b"cat", b"1", b"2", b" cat")
NEW = (b"hund", b" hund", b"hunde", b"ha", b"us", b"haus", b"12", b"cat", b"qqq", b"katze", b" ", b"k")


def rows(problem, **options):
    plan = run(problem, Chosen("trans", options))
    return {problem.target.token_bytes[i]: terms(plan, j) for j, i in enumerate(problem.alignment.missing)}


def test_a_table_by_hand(tmp_path):
    (tmp_path / "t.tsv").write_text("dog\thund\t3\nhouse\thaus\t1\ncat\thund\t1\n", encoding="utf-8")
    found = rows(make_problem(old=OLD, new=NEW), table=tmp_path / "t.tsv")
    assert found[b"hund"] == pytest.approx({0: 0.75, 6: 0.25})
    assert found[b" hund"] == pytest.approx({1: 0.75, 9: 0.25})
    # haus = house: 1; with a space before each, space and word on both sides: 0.75 of house, 0.25 of the space
    assert found[b"haus"] == pytest.approx({2: 1.75 / 2, 3: 0.25 / 2})
    assert found[b"12"] == {7: 1.0}  # a number: its first old piece
    # `hunde` holds hund (of dog and cat): their weights, none begins a word
    assert found[b"hunde"] == pytest.approx({0: 0.75, 6: 0.25})
    # `ha` begins haus, whose translations it takes, the space's doubled; `us` begins no known token and holds none
    assert found[b"ha"] == pytest.approx({2: 875 / 1125, 3: 250 / 1125})
    assert found[b"us"] == {}
    assert found[b"qqq"] == {}
    assert found[b"k"] == {}


def test_translations_that_begin_a_word_count_double_in_smoothing(tmp_path):
    (tmp_path / "t.tsv").write_text("dog\thund\t1\n", encoding="utf-8")
    new = (b"hund", b" hund", b"x hund")
    problem = make_problem(old=OLD, new=new)
    plan = run(problem, Chosen("trans", {"table": tmp_path / "t.tsv"}))
    assert terms(plan, 2) == pytest.approx({1: 1.0})  # hund lies in ` hund`, which was taken first
    assert inside(b"ab cab", {b"ab": 0, b" ca": 1, b"b c": 2, b"c": 3}) == [b"b c", b" ca", b"ab"]


def test_word_pairs_are_shared_among_their_tokens_as_published():
    """Half of the weight all with all, half by place; each new token receives the whole."""
    assert shares(1, 1) == [(0, 0, 1.0)]
    two_three = {(i, j): w for i, j, w in shares(2, 3)}
    assert two_three[0, 0] == pytest.approx(0.25 + 0.5)
    assert two_three[0, 1] == pytest.approx(0.25 + 0.25)
    assert two_three[1, 0] == pytest.approx(0.25)
    for old, new in ((1, 4), (3, 2), (5, 5)):
        for j in range(new):
            assert sum(w for _, place, w in shares(old, new) if place == j) == pytest.approx(1)


def test_prefixes_are_found_by_bisection():
    assert longer(b"ab", [b"a", b"ab", b"abc", b"abd", b"b"]) == [b"ab", b"abc", b"abd"]
    assert longer(b"z", [b"a"]) == []


def test_fast_aligns_columns_and_its_rare_pairs(tmp_path):
    (tmp_path / "t.tsv").write_text("dog\thund\t-0.1\t50\ncat\thund\t-3\t9\n<eps>\thund\t-1\t90\n")
    assert dict(read_table(tmp_path / "t.tsv", 10)) == {("dog", "hund"): 50, (" dog", " hund"): 50}
    assert len(read_table(tmp_path / "t.tsv", 5)) == 4


@pytest.mark.parametrize("line", ["dog", "dog\thund\tx", "dog\thund\t-1", "a\tb\tc\td\t1"])
def test_lines_that_are_no_pair_are_named(tmp_path, line):
    (tmp_path / "t.tsv").write_text(f"dog\thund\t1\n{line}\n")
    with pytest.raises(RequestError, match="line 2"):
        read_table(tmp_path / "t.tsv", 0)


def test_what_is_missing_is_said_plainly(tmp_path, monkeypatch):
    problem = make_problem(old=OLD, new=NEW)
    with pytest.raises(RequestError, match="translation table or a parallel corpus"):
        run(problem, Chosen("trans"))
    with pytest.raises(RequestError, match="There is no file"):
        run(problem, Chosen("trans", {"table": tmp_path / "none"}))
    monkeypatch.setitem(__import__("sys").modules, "eflomal", None)
    with pytest.raises(MissingExtraError, match="eflomal"):
        run(problem, Chosen("trans", {"parallel": tmp_path / "none"}))


def test_a_parallel_corpus_gives_the_same_rows_as_its_table(tmp_path):
    pytest.importorskip("eflomal")
    lines = [
        "the dog sleeps\tder hund schläft",
        "the house sleeps\tdas haus schläft",
        "a dog\tein hund",
        "a house\tein haus",
    ]
    (tmp_path / "p.tsv").write_text("\n".join(lines * 40), encoding="utf-8")
    counts = count_links(tmp_path / "p.tsv", 20)
    best = {target: max(counts, key=lambda pair, t=target: counts[pair] * (pair[1] == t))[0] for _, target in counts}
    assert best[" hund"] == " dog"
    assert best[" haus"] == " house"
    found = rows(make_problem(old=(*OLD, b" house"), new=(*NEW, b" haus")), parallel=tmp_path / "p.tsv")
    assert max(found[b" hund"], key=found[b" hund"].get) == 1
