"""What holds for every method in the registry; a new line in the table is tested the moment it is written."""

import random
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from tests.methods.problems import NEW, OLD, TEXTS, TinyModel, TinySpace, make_donor, make_problem, vector
from tokenadapt.anchors import Anchors
from tokenadapt.methods import METHODS, Chosen, stacked
from tokenadapt.methods.make import holes, make_rows, run
from tokenadapt.methods.options import parameters
from tokenadapt.plan import MemoryTable, Plan, build_table, missing_rows
from tokenadapt.vocab.types import How

EVERY = pytest.mark.parametrize("name", METHODS)
ROLES = pytest.mark.parametrize("role", ["input", "output"])


def rows_of(problem, name):
    made = make_rows(problem, chosen(name))
    return missing_rows(problem.table, made, 0, len(problem.alignment.missing))


LIBRARY = {"focus": "gensim"}  # optional extras
FOLDER = TemporaryDirectory()
SMALL = {"focus": {"min_count": 1, "dim": 8}, "align": {"texts": 9}}
SMALL["tokalign"] = {"min_count": 1, "dim": 4, "epochs": 2, "pivots": 3}
SMALL["classes"] = {"rest": "length", "two_inside": "ends", "more_inside": "normal"}
SMALL["cw2v"] = {"min_count": 1, "rank": 3, "steps": 5, "batch": 16, "k": 4}


@cache
def chosen(name):
    """The method with the options that it cannot do without, and small ones where defaults are for real texts."""
    if "files" not in METHODS[name].needs:
        return Chosen(name, SMALL.get(name, {}))
    folder = Path(FOLDER.name)
    words = [token.decode("latin-1").strip() for token in {*OLD, *NEW} - {None, b" "}]
    lines = [f"{word} {' '.join(map(str, vector(word.encode(), 6)))}" for word in sorted(set(words))]
    (folder / "words.vec").write_text("\n".join(lines), encoding="utf-8")
    (folder / "pairs.txt").write_text("the the\nin\tin\nre re\n", encoding="utf-8")
    (folder / "table.tsv").write_text("the\tthere\t2\nre\tthere\t1\nin\trein\t1\n", encoding="utf-8")
    files = {
        "table": "table.tsv",
        "source": "words.vec",
        "target": "words.vec",
        "vectors": "words.vec",
        "dictionary": "pairs.txt",
    }
    known = parameters(METHODS[name].load())
    return Chosen(name, {key: folder / file for key, file in files.items() if key in known})


def world(name, **options):
    """The problem with whatever else the method needs."""
    if name in LIBRARY:
        pytest.importorskip(LIBRARY[name])
    if "donor" in METHODS[name].needs:
        options["donor"] = make_donor(options.get("new", NEW))
    if "corpus" in METHODS[name].needs:
        options["corpus"] = lambda: iter(TEXTS)
    problem = make_problem(**options)
    if "model" in METHODS[name].needs:
        problem = replace(problem, model=TinyModel(problem.table.tensor))
    if name == "auto":
        judge = Anchors(problem, problem.model, tied=False, open_space=space_of_hidden)
        return replace(problem, score=partial(judge.score, problem))
    return problem


def space_of_hidden(source, target, alignment, segmentation):
    old = np.stack([vector(token, 6) for token in source.token_bytes])
    return TinySpace(old, old[alignment.missing])


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch):
    """Let methods that fit something do so on the few tokens of these problems."""
    monkeypatch.setattr(stacked, "FEWEST", 5)
    monkeypatch.setitem(stacked.TEXTS, "full", 12)


@EVERY
@ROLES
def test_every_row_is_made_and_finite_and_copied_rows_keep_their_bits(name, role):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        problem = world(name, role=role, dtype=dtype)
        made = make_rows(problem, chosen(name))
        rows = missing_rows(problem.table, made, 0, len(problem.alignment.missing))
        assert rows.shape == (len(problem.alignment.missing), problem.width)
        assert torch.isfinite(rows).all()
        new = torch.cat(list(build_table(problem.table, problem.alignment, made, torch.zeros(problem.width))))
        copied = np.flatnonzero(problem.alignment.how == How.COPIED)
        assert torch.equal(new[copied], problem.table.rows(problem.alignment.source_id[copied]))
        assert new.dtype == dtype
        assert torch.isfinite(new).all()


@EVERY
@ROLES
def test_rows_do_not_depend_on_the_state_of_the_world(name, role):
    first = rows_of(world(name, role=role), name)
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002 - the global generator is what must not matter
    torch.randn(1000)
    assert torch.equal(first, rows_of(world(name, role=role), name))


@EVERY
@ROLES
def test_a_permutation_of_the_target_permutes_the_rows(name, role):
    order = np.random.default_rng(3).permutation(len(NEW))
    shuffled = tuple(NEW[i] for i in order)
    straight, permuted = world(name, role=role), world(name, role=role, new=shuffled)
    by_token = dict(zip(straight.alignment.missing, rows_of(straight, name), strict=True))
    for index, row in zip(permuted.alignment.missing, rows_of(permuted, name), strict=True):
        torch.testing.assert_close(row, by_token[order[index]], rtol=1e-4, atol=1e-5)


@EVERY
@ROLES
@pytest.mark.parametrize("value", [0.0, 1.0], ids=["zero", "twins"])
def test_equal_old_rows_make_finite_rows(name, role, value):
    problem = world(name, role=role, table=torch.full((len(OLD), 8), value))
    assert torch.isfinite(rows_of(problem, name)).all()


@EVERY
@ROLES
def test_rows_at_the_edge_of_float16_stay_inside_it(name, role):
    """Sums of rows near 65,504 would be infinite in storage."""
    table = 60_000 * torch.randn(len(OLD), 8, generator=torch.Generator().manual_seed(1)).sign()
    problem = world(name, role=role, table=table.half())
    made = make_rows(problem, chosen(name))
    for block in build_table(problem.table, problem.alignment, made, torch.zeros(problem.width)):
        assert block.dtype == torch.float16
        assert torch.isfinite(block).all()


@EVERY
@ROLES
def test_vocabularies_of_one_token(name, role):
    for old, new in (((b"a",), (b"a",)), ((b"a",), (b"aa",)), ((b"a",), (b"b",))):
        problem = world(name, role=role, old=old, new=new)
        rows = rows_of(problem, name)
        assert rows.shape == (len(problem.alignment.missing), 8)
        assert torch.isfinite(rows).all()


@EVERY
def test_pieces_without_a_row_are_not_read(name):
    """Some models have fewer rows than their tokenizer has tokens."""
    short = torch.randn(len(OLD) - 1, 8)  # `ing` has no row, and `theing` needs it
    new = tuple(token for token in NEW if token != b"ing")
    assert torch.isfinite(rows_of(world(name, table=short, new=new), name)).all()


class Counted:
    """A progress that keeps what each stage was told, and may be broken off at the first step."""

    def __init__(self, stop=False):
        self.stages, self.stop = [], stop

    def note(self, message):
        pass

    @contextmanager
    def stage(self, name, total=None, unit=""):
        mine = [name, total, 0.0]
        self.stages.append(mine)

        def advance(amount):
            mine[2] += amount
            if self.stop:
                raise KeyboardInterrupt

        yield advance


# These have no loop of their own that could be long: others read the model, search or encode for them.
SHORT = {"zero", "mean", "pieces", "length", "ends", "asymmetric", "merge", "local", "global", "hybrid", "chain"}


@pytest.mark.parametrize("name", sorted(set(METHODS) - SHORT))
def test_long_methods_say_how_far_they_are_and_can_be_broken_off(name):
    progress = Counted()
    run(replace(world(name), progress=progress), chosen(name))
    steps = [(total, done) for _, total, done in progress.stages if total]
    assert any(done for _, done in steps)
    assert all(done <= total for total, done in steps)
    with pytest.raises(KeyboardInterrupt):
        run(replace(world(name), progress=Counted(stop=True)), chosen(name))


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "donor" in method.needs])
@pytest.mark.parametrize("value", [0.0, 1.0], ids=["zero", "twins"])
def test_equal_rows_of_a_donor_make_finite_rows(name, value):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        rows = torch.full((len(NEW) + 3, 5), value, dtype=dtype)
        for some in (rows, torch.cat([rows[:-4], torch.eye(5, dtype=dtype)[:4]])):
            problem = replace(world(name), donor=make_donor(rows=some))
            assert torch.isfinite(rows_of(problem, name)).all()


def test_what_a_method_leaves_comes_from_the_fallback_then_from_the_mean():
    problem = make_problem()
    left = run(problem, Chosen("pieces"))
    assert [NEW[i] for i in problem.alignment.missing[left.empty]] == [b"\xff"]
    rows = missing_rows(problem.table, make_rows(problem, Chosen("pieces"), Chosen("zero")), 0, 7)
    assert rows[left.empty].tolist() == [[0.0] * 8]
    made = make_rows(problem, Chosen("pieces"), Chosen("length"))  # the fallback has none either
    assert isinstance(made, Plan)
    rows = missing_rows(problem.table, made, 0, 7)
    torch.testing.assert_close(rows[left.empty][0], problem.table.tensor[1:].mean(0))
    dense = make_rows(problem, Chosen("pieces"), Chosen("normal"))
    rows = missing_rows(problem.table, dense, 0, 7)
    torch.testing.assert_close(rows[0], missing_rows(problem.table, left, 0, 1)[0])
    whole = missing_rows(problem.table, run(problem, Chosen("normal")), 0, 7)
    assert torch.equal(rows[left.empty], whole[left.empty])  # a draw depends on the token, not on its place


def test_a_scaled_plan_keeps_its_scale_when_a_fallback_joins():
    problem = make_problem()
    made = make_rows(problem, Chosen("asymmetric"), Chosen("mean"))
    alone = run(problem, Chosen("asymmetric"))
    assert isinstance(made, Plan)
    held = ~alone.empty
    rows, before = (missing_rows(problem.table, plan, 0, 7) for plan in (made, alone))
    torch.testing.assert_close(rows[held], before[held])
    torch.testing.assert_close(rows[~held][0], problem.table.tensor[1:].mean(0))


def test_how_many_tokens_a_method_leaves_is_said():
    said = []
    make_rows(make_problem(), Chosen("pieces"), Chosen("length"), say=said.append)
    assert said == ["pieces has no row for 1 of 7 tokens: the fallback, mean, makes them"]  # length has none either
    make_rows(make_problem(), Chosen("mean"), say=said.append)
    make_rows(make_problem(), Chosen("pieces"))
    assert len(said) == 1
    few = replace(make_problem(), corpus=lambda: iter(("there",)))
    left = len(holes(run(few, Chosen("align"))))
    make_rows(few, Chosen("align"), Chosen("pieces"), say=said.append)
    assert said[1:] == [
        f"align has no row for {left - 1} of 7 tokens: the fallback, pieces, makes them",
        "align has no row for 1 of 7 tokens: the fallback, mean, makes them",
    ]


def test_what_has_no_row_of_its_own_gets_its_pieces_unless_told_otherwise():
    from tokenadapt.recipe import TransplantOptions

    assert TransplantOptions("model", "tokenizer", "out").fallback == "pieces"


def test_the_mean_is_one_term_however_many_rows_there_are():
    problem = make_problem()
    plan = run(problem, Chosen("mean"))
    assert isinstance(plan, Plan)
    assert np.diff(plan.start).tolist() == [1] * 7
    torch.testing.assert_close(missing_rows(problem.table, plan, 2, 3)[0], problem.table.tensor[1:].mean(0))


def test_needs_are_checked_before_the_method_runs():
    from tokenadapt.errors import RequestError

    problem = make_problem(space=None)
    with pytest.raises(RequestError, match="hybrid needs vectors of strings"):
        make_rows(problem, Chosen("hybrid"))


def test_nothing_missing_is_nothing_to_do():
    problem = make_problem(new=(b"the", b"in"))
    assert len(make_rows(problem, Chosen("hybrid")).start) == 1


def test_tables_are_read_by_row_only():
    class Strict(MemoryTable):
        def rows(self, ids):
            assert (np.asarray(ids) >= 0).all()
            return super().rows(ids)

    problem = make_problem()
    strict = make_problem()
    object.__setattr__(strict, "table", Strict(strict.table.tensor))
    for name in METHODS:
        if not METHODS[name].needs:
            assert torch.equal(rows_of(strict, name), rows_of(problem, name))
