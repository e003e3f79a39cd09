"""`stacked`: positions that both tokenizers share, the fit against brute force, and a mix that is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.methods.problems import TinyModel, byte_vocab, make_problem
from tests.methods.test_auto import Notes
from tokenadapt.errors import RequestError
from tokenadapt.methods import mixture, stacked
from tokenadapt.methods.learned import learned
from tokenadapt.methods.likelihood import Cost, cost
from tokenadapt.methods.mixture import Rules, fit
from tokenadapt.methods.own_text import Observed, Retold, canonical, observe, read_again, retell, with_repeats, written
from tokenadapt.methods.pieces import end_piece, pieces
from tokenadapt.methods.single_row import best_single
from tokenadapt.methods.statistics import mean_row
from tokenadapt.plan import Dense, missing_rows
from tokenadapt.vocab.types import How

OLD = (None, b"a", b"b", b"c", b"d", b" ", b"ab")
NEW = (b"abc", b"a", b"b", b"c", b"d", b" ", b"cd", b" ab", b"ad")


def bigram_problem(width=8, **more):
    problem = make_problem(OLD, NEW, role="output", width=width, **more)
    return replace(problem, model=TinyModel(problem.table.tensor))


def looked(problem, texts):
    return observe(problem, learned(replace(problem, role="input")), retell(problem, texts))


def some_rules(problem, seen):
    made = (pieces(problem), end_piece(problem, 0), end_piece(problem, -1))
    return Rules(
        table=problem.table,
        made=made,
        centre=torch.from_numpy(mean_row(problem.table, problem.ordinary)).float(),
        group=np.clip(problem.segmentation.counts - 2, 0, 1),
        features=stacked.features(problem, seen),
        direction=torch.eye(problem.width)[-1],  # the last entry of every state of this model is 1
        order=canonical(problem),
    )


def again(old, new, ids, given=0):
    tokens, chosen = read_again(old, new, ids, given)
    return tokens.tolist(), chosen.tolist()


def test_a_text_read_again_by_hand():
    # old: ab|c|d| |ab   new: abc|d| ab; the last new token may go on, so it does not count
    old, new = byte_vocab(OLD), byte_vocab(NEW)
    assert again(old, new, [6, 3, 4, 5, 6]) == ([0, 4], [True, True])
    assert again(old, new, [6, 3, 4, 5, 6], given=1) == ([0, 4], [False, True])  # abc begins in what was given
    assert again(old, new, [6, 3, 4, 5, 6], given=3) == ([0, 4], [False, False])
    assert again(old, new, [6, 3, 99, 4, 5, 6]) == ([0, 4], [True, True])  # a row of the table that no token names


def test_a_character_cut_at_the_end_leaves_the_rest_of_the_text():
    old, new = byte_vocab((b"a", b"\xc3", b"\xa9")), byte_vocab((b"a", "é".encode()))
    assert again(old, new, [0, 0, 1]) == ([0], [True])
    assert again(old, new, [0, 1, 0]) == ([], [])  # the text is not what was written


def test_a_space_that_the_target_puts_before_a_text_moves_no_place():
    spaced = replace(byte_vocab((b" a", b"b", b"c")), encode=lambda texts: [[0, 1, 2]])
    assert again(byte_vocab((b"a", b"b", b"c")), spaced, [0, 1, 2], given=1) == ([0, 1], [False, True])


def test_states_are_those_that_the_new_input_rows_leave():
    problem = bigram_problem()
    inputs = pieces(replace(problem, role="input"))
    seen = observe(problem, inputs, retell(problem, 40))
    assert len(seen.label) > 200
    assert (np.diff(seen.text) >= 0).all()
    model, source = problem.model, problem.alignment.source_id
    rows = missing_rows(problem.table, inputs, 0, 4)
    table = torch.stack(
        [model.rows[source[i]] if source[i] >= 0 else rows[np.searchsorted(problem.alignment.missing, i)]
         for i in range(len(NEW))]
    )  # fmt: skip
    possible = model.states_under([[*range(len(NEW)), 0]], table)  # after each target token
    possible = torch.cat([possible, model.after[:1]])  # and after what begins a text
    for state in seen.states[::17]:
        assert torch.isclose(possible, state, atol=1e-6).all(1).any()
    assert not torch.equal(seen.states, observe(problem, Dense(rows + 1), retell(problem, 40)).states)


def test_texts_are_written_once(monkeypatch, tmp_path):
    monkeypatch.setenv("TOKENADAPT_CACHE", str(tmp_path))
    model = bigram_problem().model
    first = written(model, [[1], [2, 3]], 9, 5)
    assert [text[1 : 1 + n] for text, n in zip(first, (1, 2), strict=True)] == [[1], [2, 3]]
    monkeypatch.setattr(TinyModel, "continued", None)
    assert written(model, [[1], [2, 3]], 9, 5) == first
    with pytest.raises(TypeError):
        written(model, [[1], [2, 3]], 9, 6)  # another seed: other texts
    for path in (tmp_path / "texts").iterdir():
        path.write_text("[[1", encoding="utf-8")  # a broken file is no text
    with pytest.raises(TypeError):
        written(model, [[1], [2, 3]], 9, 5)


def brute_loss(problem, rows, seen):
    """Mean cross-entropy over the whole new vocabulary, in numpy."""
    table = np.zeros((len(NEW), problem.width))
    how = problem.alignment.source_id
    table[how >= 0] = problem.table.tensor.numpy()[how[how >= 0]]
    table[problem.alignment.missing] = rows
    logits = seen.states.numpy().astype(np.float64) @ table.T
    top = logits.max(1, keepdims=True)
    whole = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    return float((whole - logits[np.arange(len(seen.label)), seen.label]).mean())


def exact_scene(rules, problem, seen):
    M = len(problem.alignment.missing)
    return mixture._scene(rules, problem.alignment, seen, np.arange(M), np.ones(M))


def test_the_loss_is_the_cross_entropy_over_the_new_vocabulary_where_every_token_is_a_rival():
    problem = bigram_problem()
    seen = looked(problem, 30)
    rules = some_rules(problem, seen)
    scene = exact_scene(rules, problem, seen)
    for seed in range(3):
        point = np.random.default_rng(seed).normal(size=rules.groups * 3 + rules.features.shape[1])
        weight, bias = mixture._split(point, rules)
        rows = mixture.Mixture(weight, bias, 0, 0).rows(rules)
        assert mixture._loss(scene, rules, point)[0] == pytest.approx(brute_loss(problem, rows.numpy(), seen), rel=1e-4)


def test_the_gradient_is_that_of_the_loss():
    problem = bigram_problem()
    seen = looked(problem, 30)
    rules = some_rules(problem, seen)
    scene = exact_scene(rules, problem, seen)
    point = np.random.default_rng(8).normal(size=rules.groups * 3 + rules.features.shape[1]) / 2
    slope = mixture._loss(scene, rules, point)[1]
    for at in range(len(point)):
        step = np.eye(len(point))[at] * 1e-2
        rise = mixture._loss(scene, rules, point + step)[0] - mixture._loss(scene, rules, point - step)[0]
        assert slope[at] == pytest.approx(rise / 2e-2, abs=2e-3)


def test_a_known_mix_is_found_again():
    """Labels drawn under rows 0.7 first + 0.5 last about the mean, bias -3: the fit says as well what comes."""
    problem = bigram_problem()
    seen = looked(problem, 30)
    rules = some_rules(problem, seen)
    first, last = (missing_rows(problem.table, rules.made[k], 0, 4) - rules.centre for k in (1, 2))
    truth = rules.centre + 0.7 * first + 0.5 * last - 3 * rules.direction
    table = torch.zeros(len(NEW), problem.width)
    source = problem.alignment.source_id
    table[source >= 0] = problem.table.tensor[source[source >= 0]]
    table[problem.alignment.missing] = truth
    states = problem.model.after[1:].repeat(600, 1)
    chance = torch.softmax(states @ table.T, 1)
    label = torch.multinomial(chance, 1, generator=torch.Generator().manual_seed(1))[:, 0].numpy()
    drawn = Observed(states, label, np.arange(len(label)) // 30)
    found = fit(rules, problem.alignment, drawn, seed=0)
    best, start = brute_loss(problem, truth.numpy(), drawn), brute_loss(problem, table_rows(rules), drawn)
    assert start - best > 0.1
    assert brute_loss(problem, found.rows(rules).numpy(), drawn) - best < 0.05 * (start - best)
    assert found.after < found.before


def table_rows(rules):
    return missing_rows(rules.table, rules.made[0], 0, len(rules.group)).numpy()


def test_a_sample_of_the_rivals_finds_nearly_the_same(monkeypatch):
    problem = bigram_problem()
    seen = looked(problem, 60)
    rules = some_rules(problem, seen)
    exact = fit(rules, problem.alignment, seen, seed=0)
    monkeypatch.setattr(mixture, "RIVALS", 3)  # of 4, drawn with replacement
    sampled = fit(rules, problem.alignment, seen, seed=0)
    losses = [brute_loss(problem, one.rows(rules).numpy(), seen) for one in (exact, sampled)]
    first = brute_loss(problem, table_rows(rules), seen)
    assert losses[0] <= losses[1] < first


def test_input_rows_are_the_learned_ones_and_too_little_text_changes_nothing(caplog):
    problem = bigram_problem()
    few = stacked.stacked(problem, texts=2)
    assert "too few" in caplog.text
    assert isinstance(few, Dense)
    as_input = stacked.stacked(replace(problem, role="input"))
    torch.testing.assert_close(few.rows, as_input.rows)


def test_a_tied_table_says_what_a_second_one_would_bring(monkeypatch):
    monkeypatch.setattr(stacked, "FEWEST", 50)
    told = Notes()
    problem = bigram_problem(width=1400, progress=told)
    problem.model.tied = True
    tied = stacked.stacked(replace(problem, tied=True), texts=200)
    assert "with --untie" in told.lines[-1]
    assert told.lines[-1].endswith("in 0.1 MB more")  # 9 rows of 1,400 floats
    assert tied.rows.shape == (4, 1400)


def test_a_single_row_goes_towards_the_fitted_one_only_where_texts_say_so():
    problem = bigram_problem(tied=True)
    problem.model.tied = True
    told = retell(problem, 200)
    truth = Dense(torch.zeros(4, problem.width))
    worse = Dense(torch.full((4, problem.width), 30.0))
    assert best_single(problem, truth, worse, told) is truth
    taken = best_single(problem, worse, truth, told)
    torch.testing.assert_close(taken.rows, torch.full((4, problem.width), 15.0))  # half of the way, the most there is


def test_the_cost_of_texts_is_that_of_the_whole_new_vocabulary():
    problem = bigram_problem()
    inputs = pieces(replace(problem, role="input"))
    told = retell(problem, 40)
    seen = observe(problem, inputs, told)
    outputs = pieces(problem)
    found = cost(problem, inputs, outputs, told)
    assert found.nats.mean() == pytest.approx(
        brute_loss(problem, missing_rows(problem.table, outputs, 0, 4), seen), rel=1e-5
    )
    assert found.nbytes == sum(len(NEW[label]) for label in seen.label)
    assert found.bits_per_byte == pytest.approx(found.nats.sum() / np.log(2) / found.nbytes)


def test_less_is_clear_only_beyond_the_noise_between_texts():
    text = np.repeat(np.arange(10), 2)
    base = Cost(np.ones(20), text, 40)
    assert Cost(np.full(20, 0.9), text, 40).clearly_below(base)
    assert not base.clearly_below(base)
    mixed = np.where(text % 2 == 0, 0.5, 1.4)  # less on the mean, more in every second text
    assert not Cost(mixed, text, 40).clearly_below(base)
    assert not Cost(np.zeros(2), np.zeros(2, int), 2).clearly_below(Cost(np.ones(2), np.zeros(2, int), 2))  # one text


def test_the_method_says_better_what_the_model_writes(monkeypatch):
    monkeypatch.setattr(stacked, "FEWEST", 50)
    problem = bigram_problem()
    made = stacked.stacked(problem, texts=200)
    fresh = looked(replace(problem, seed=9), 100)
    means = missing_rows(problem.table, pieces(problem), 0, len(made.rows))
    assert brute_loss(problem, made.rows.numpy(), fresh) < brute_loss(problem, means.numpy(), fresh) - 0.02


def test_the_rank_of_a_token_is_that_of_its_merge_or_score():
    vocab = byte_vocab((b"b", b"ab", b"a", b"aab"))
    rank = stacked.frequency_rank(vocab)
    assert rank[0] == rank[2] < rank[1] < rank[3]
    scored = replace(vocab, merges=None, scores=np.array([-1.0, -9.0, -2.0, -3.0]))
    assert np.argsort(stacked.frequency_rank(scored)).tolist() == [0, 2, 3, 1]


class Mute(TinyModel):
    """A model that has no log-probabilities of running text, as a masked one."""

    def continued(self, prompts, tokens, seed=0):
        raise RequestError("It is a masked model.", "Choose another.")


class Absent(Mute):
    """A model too large for this machine."""

    def states(self, sequences, layers):
        raise RequestError("It is too large.", "Free memory.")


def test_a_model_that_writes_nothing_leaves_the_learned_rows(caplog):
    problem = bigram_problem()
    mute = replace(problem, model=Mute(problem.table.tensor))
    torch.testing.assert_close(stacked.stacked(mute).rows, learned(problem).rows)
    assert "masked" in caplog.text


def test_a_model_that_cannot_be_run_leaves_rows_learned_without_it(caplog):
    problem = bigram_problem()
    absent = replace(problem, model=Absent(problem.table.tensor))
    torch.testing.assert_close(stacked.stacked(absent).rows, learned(problem, effort="none").rows)
    assert "too large" in caplog.text


def test_half_of_some_texts_is_said_twice_and_only_the_second_time_is_learned_from():
    problem = bigram_problem()
    gone = np.arange(len(NEW)) == 5
    how = np.where(gone, How.UNUSED, problem.alignment.how).astype(np.uint8)
    source = np.where(gone, -1, problem.alignment.source_id)
    problem = replace(problem, alignment=replace(problem.alignment, how=how, source_id=source))
    chosen = np.array([False, True, True, True, True])
    told = [Retold(2, np.array([-1, 0, 5, 6, 7, 8]), chosen), Retold(3, np.array([-1, 0, 5, 6, 7, 8]), chosen)]
    first, again, second = with_repeats(problem, told)
    assert (first, second) == (told[0], told[1])
    assert again.number == 2
    assert again.ids.tolist() == [-1, 0, 5, 0, 5]
    assert again.chosen.tolist() == [False, False, False, False]  # its second token is one that no text has
    longer = replace(told[0], ids=np.array([-1, 0, 6, 7, 8, 0, 0, 0, 0]), chosen=np.ones(8, bool))
    assert with_repeats(problem, [longer])[1].chosen.tolist() == [False] * 5 + [True] * 3
    seen = observe(problem, pieces(replace(problem, role="input")), with_repeats(problem, [longer]))
    assert seen.label.tolist() == [0, 6, 7, 8, 0, 0, 0, 0, 6, 7, 8]
    assert seen.text.tolist() == [2] * 11
