"""Counts: exact, mergeable, prunable, and as good as the text itself."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tests.training.conftest import story
from tokenadapt.documents import Document
from tokenadapt.errors import RequestError
from tokenadapt.training.bpe import ALPHABET, train_words
from tokenadapt.training.counts import Counts, Cut, load_counts, save_counts
from tokenadapt.training.engine import PAIR_LIMIT, check_counters
from tokenadapt.training.presets import build, stretch_state, word_state
from tokenadapt.training.worker import Job, replay


def counted(text: str, cut: Cut | None = None) -> Counts:
    counts = Counts(cut or Cut("word", word_state("llama3")))
    counts.add([Document(text, "", "", 1)])
    return counts


def test_counts_are_those_of_the_pieces():
    assert counted("a b  a b\n1234 a").pieces == {"a": 1, " b": 2, " ": 1, " a": 2, "\n": 1, "123": 1, "4": 1}


def test_special_tokens_are_cut_out_longest_first():
    counts = counted("a<|x|>b<|x|>yc", Cut("word", word_state("llama3"), None, ("<|x|>", "<|x|>y")))
    assert counts.pieces == {"a": 1, "b": 1, "c": 1}


def test_the_normaliser_runs_before_the_cut():
    assert counted("e\u0301", Cut("word", word_state("llama3"), {"type": "NFC"})).pieces == {"é": 1}


def test_a_file_gives_back_what_was_saved_and_is_sorted(tmp_path):
    counts = counted(story(50))
    save_counts(counts, tmp_path / "c.parquet")
    assert load_counts([tmp_path / "c.parquet"]) == counts
    with pytest.raises(RequestError, match="exists"):
        save_counts(counts, tmp_path / "c.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["c.parquet"]


def test_merged_parts_are_the_whole(tmp_path):
    texts = [story(30, seed) for seed in range(3)]
    for number, text in enumerate(texts):
        save_counts(counted(text), tmp_path / f"{number}.parquet")
    merged = load_counts([tmp_path / f"{number}.parquet" for number in range(3)])
    assert merged.pieces == sum((counted(text).pieces for text in texts), Counter())
    assert (merged.documents, merged.bytes) == (3, sum(len(text.encode()) for text in texts))


def test_counts_that_were_cut_otherwise_do_not_merge(tmp_path):
    save_counts(counted("a"), tmp_path / "a.parquet")
    save_counts(counted("a", Cut("stretch", stretch_state())), tmp_path / "b.parquet")
    with pytest.raises(RequestError, match="different cuts"):
        load_counts([tmp_path / "a.parquet", tmp_path / "b.parquet"])


def test_what_is_no_counts_file_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "text.parquet")
    (tmp_path / "junk.parquet").write_bytes(b"PAR1junk")
    for name in ("text.parquet", "junk.parquet", "none.parquet"):
        with pytest.raises(RequestError, match="tokenadapt count"):
            load_counts([tmp_path / name])


def test_pruning_counts_what_it_drops():
    counts = counted("a b b c c c".replace("a", "x"))
    pruned = counts.pruned(2)
    assert pruned.pieces == {" b": 2, " c": 3}
    assert pruned.dropped == 1


def test_words_of_stretches_are_words_of_the_text():
    text = "one two three\nfour 55 six: seven"
    words = Cut("word", word_state("llama3"))
    stretches = counted(text * 3, Cut("stretch", stretch_state()))
    assert stretches.words(words).pieces == counted("one two three\nfour 55 six: seven" * 3).pieces


@pytest.mark.parametrize("seed", range(3))
def test_training_from_counts_equals_the_stock_trainer_on_the_text(seed):
    text = story(200, seed)
    stock = Tokenizer(models.BPE())
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    stock.pre_tokenizer = pre_tokenizers.Sequence([build(word_state("llama3")), letters])
    trainer = trainers.BpeTrainer(vocab_size=500, min_frequency=2, initial_alphabet=list(ALPHABET), show_progress=False)
    stock.train_from_iterator([text], trainer)
    expected = json.loads(stock.to_str())["model"]
    made = train_words(counted(text), 500)
    assert [list(merge) for merge in made.merges] == expected["merges"]
    assert {token: at for at, token in enumerate(made.tokens)} == expected["vocab"]


def test_replay_gives_each_word_as_often_as_counted_in_bounded_texts():
    words, counts = ["a", "bb", "c" * 100_000], [200_000, 3, 2]
    texts = list(replay(words, counts))
    assert Counter(" ".join(texts).split()) == dict(zip(words, counts, strict=True))
    assert max(map(len, texts)) < 400_000


def test_counts_that_would_overflow_are_refused_and_no_others():
    fits = Job("bpe", ["ab", "xbc"], [PAIR_LIMIT - 5, 5], 300, ALPHABET)
    check_counters(fits)
    with pytest.raises(RequestError, match=r"2,147,483,64\d"):
        check_counters(Job("bpe", ["ab", "xab"], [PAIR_LIMIT - 5, 6], 300, ALPHABET))
    check_counters(Job("bpe", ["a", "bc"], [2**40, 5], 300, ALPHABET))  # a lone letter is in no pair
