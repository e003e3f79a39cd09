"""Which old row a target token takes: precedence, roles, duplicates, rows that do not exist, and the user's map."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tiny import FAMILIES
from tests.vocab.conftest import loaded
from tests.vocab.words import letters_vocab, named
from tokenadapt.errors import RequestError
from tokenadapt.vocab import align, byte_vocab, id_map, parse_maps, segment
from tokenadapt.vocab.types import How, Kind

OLD = letters_vocab([b"a", b"b", b"ab", b" a"], [(b"a", b"b"), (b" ", b"a")][:1], special={"eos_token": "<end>"})


def reasons(alignment) -> list[str]:
    return [How(int(how)).name.lower() for how in alignment.how]


def test_bytes_decide_whatever_the_spelling():
    """Decision 1: `▁a` of one family is `Ġa` of another; spellings would have found two of the three."""
    marked = Tokenizer(models.BPE({"▁a": 0, "a": 1, "ab": 2, "c": 3}, []))
    marked.pre_tokenizer = pre_tokenizers.Metaspace()
    target = byte_vocab(loaded(PreTrainedTokenizerFast(tokenizer_object=marked)))
    alignment = align(OLD, target)
    assert named(OLD, alignment.source_id) == ["Ġa", "a", "ab", None]
    assert reasons(alignment) == ["copied", "copied", "copied", "missing"]
    assert alignment.spelled_alike == 2


@pytest.mark.parametrize("new", FAMILIES)
@pytest.mark.parametrize("old", FAMILIES)
def test_counts_sum_and_every_copied_row_has_the_same_bytes(old, new, vocabularies):
    source, target = vocabularies[old], vocabularies[new]
    alignment = align(source, target, target_rows=len(target) + 7)
    assert sum(alignment.counts().values()) == len(target) + 7
    assert reasons(alignment)[-7:] == ["unused"] * 7
    for index in np.flatnonzero(alignment.how == How.COPIED):
        assert target.token_bytes[index] == source.token_bytes[alignment.source_id[index]]
    for role in ("bos", "eos", "unk", "pad"):
        assert alignment.source_id[target.roles[role]] == source.roles[role]
    assert set(alignment.missing) == {
        index
        for index, data in enumerate(target.token_bytes)
        if data is not None and data not in set(source.token_bytes)
    }
    if old == new:
        assert not len(alignment.missing)


def test_a_special_token_never_takes_an_ordinary_row_nor_the_other_way_round():
    """Precedence and trap 10: `<end>` as letters is text; `<end>` as control token is the end."""
    plain = letters_vocab([b"a", b"<end>"])
    control = letters_vocab([b"a"], more=("<end>",))
    there, back = align(plain, control), align(control, plain)
    assert reasons(there) == ["copied", "unused"]
    assert there.notes == {1: "special token <end> has no counterpart"}
    assert reasons(back) == ["copied", "missing"]


def test_roles_come_before_names():
    """Trap 10: the same spelling in another role is another token."""
    source = letters_vocab([b"a"], special={"bos_token": "<one>", "eos_token": "<two>"})
    target = letters_vocab([b"a"], special={"bos_token": "<two>", "eos_token": "<three>"}, more=("<one>",))
    alignment = align(source, target)
    assert dict(zip(target.text, named(source, alignment.source_id), strict=True)) == {
        "a": "a", "<two>": "<one>", "<three>": "<two>", "<one>": None,
    }  # fmt: skip


def test_control_tokens_without_a_role_meet_by_name():
    source, target = letters_vocab([b"a"], more=("<tool>",)), letters_vocab([b"a"], added=("<tool>",))
    assert reasons(align(source, target)) == reasons(align(target, source)) == ["copied", "special"]


def test_chat_markers_meet_by_their_part():
    source = letters_vocab([b"a"], special={"eos_token": "<|im_end|>"}, more=("<|im_start|>",))
    target = letters_vocab([b"a"], special={"eos_token": "<end_of_turn>"}, more=("<start_of_turn>",))
    assert named(source, align(source, target).source_id) == ["a", "<|im_end|>", "<|im_start|>"]


def test_a_padding_token_does_not_take_the_row_of_the_end():
    """Trap 10, pad = eos: with the end token's row, padding would be sampled in its place."""
    source = letters_vocab([b"a"], special={"eos_token": "<end>", "pad_token": "<end>"})
    target = letters_vocab([b"a"], special={"eos_token": "</s>", "pad_token": "<pad>"})
    alignment = align(source, target)
    assert reasons(alignment) == ["copied", "special", "unused"]
    assert named(source, alignment.source_id) == ["a", "<end>", None]
    assert id_map(source, target, alignment)[1] == target.roles["eos"]


def test_one_end_stays_one_end():
    source = letters_vocab([b"a"], special={"eos_token": "<|endoftext|>"})
    target = letters_vocab([b"a"], special={"eos_token": "<|im_end|>"}, more=("<|endoftext|>",))
    assert named(source, align(source, target).source_id) == ["a", "<|endoftext|>", None]


def test_a_begin_token_may_share_the_row_of_the_end_and_this_is_noted():
    source = letters_vocab([b"a"], special={"eos_token": "<x>", "bos_token": "<x>"})
    target = letters_vocab([b"a"], special={"eos_token": "</s>", "bos_token": "<s>"})
    alignment = align(source, target)
    assert reasons(alignment) == ["copied", "special", "special"]
    assert set(alignment.notes) == {1, 2}
    assert "share the row of <x>" in alignment.notes[1]


def test_a_token_of_several_parts_prefers_its_own_name():
    """Source: begins with <s>, ends with <e>, and has <e>; target: one token for both, named <e>."""
    source = letters_vocab([b"a"], special={"bos_token": "<s>", "eos_token": "<e>"})
    target = letters_vocab([b"a"], special={"bos_token": "<e>", "eos_token": "<e>"})
    assert named(source, align(source, target).source_id) == ["a", "<e>"]


def doubled():
    """A byte token, a letter: both spell `a`."""
    backend = Tokenizer(models.BPE({"<0x61>": 0, "a": 1, "b": 2}, [], byte_fallback=True))
    return byte_vocab(loaded(PreTrainedTokenizerFast(tokenizer_object=backend)))


def test_equal_bytes_twice():
    """Trap 12: both take a row; as old tokens, the letter gives it, since that is what the model reads."""
    single = letters_vocab([b"b", b"a"])
    assert doubled().kind.tolist() == [Kind.BYTE, Kind.ORDINARY, Kind.ORDINARY]
    assert align(single, doubled()).source_id.tolist() == [1, 1, 0]
    assert align(doubled(), single).source_id.tolist() == [2, 1]


def test_ids_beyond_the_table_do_not_exist():
    """Trap 7: a tokenizer with more ids than the model has rows."""
    source, target = letters_vocab([b"a", b"b", b"c"]), letters_vocab([b"c", b"a"])
    alignment = align(source, target, source_rows=2)
    assert alignment.source_id.tolist() == [-1, 0]
    assert alignment.source_rows == 2


def test_fewer_rows_than_ids_are_refused():
    with pytest.raises(RequestError, match="4 rows"):
        align(OLD, OLD, target_rows=4)


def test_reserved_places_are_unused():
    target = letters_vocab([b"a"], added=("<unused7>", "<table>"))
    assert reasons(align(letters_vocab([b"a"]), target)) == ["copied", "unused", "missing"]


def test_gaps_are_unused():
    state = json.loads(Tokenizer(models.BPE({"a": 0, "b": 3}, [])).to_str())
    target = byte_vocab(loaded(PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))))
    assert reasons(align(OLD, target)) == ["copied", "unused", "unused", "copied"]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_swapping_ids_swaps_rows(data):
    """Alignment depends on what tokens are, not on where they stand."""
    tokens = [bytes([byte]) for byte in range(97, 107)] + [b"ab", b"cd", b" a"]
    shuffled = data.draw(st.permutations(tokens))
    alignment = align(letters_vocab(tokens), letters_vocab(shuffled))
    assert [tokens[index] for index in alignment.source_id] == shuffled


# the user's map


def test_maps_come_first_and_may_be_several_pieces(tmp_path):
    source = letters_vocab([b"a", b"b", b"ab", b"=", b"\n"], special={"eos_token": "<end>"})
    target = letters_vocab([b"a", b"x", b"=", b"xy", b"\n"], more=("<stop>",))
    file = tmp_path / "map.tsv"
    file.write_text("x\tb\nxy\tbab\n", encoding="utf-8")
    maps = parse_maps(["<stop>=<end>", "==ab", "x=a", "#4=#0"], file, source, target)
    assert maps == {1: (0,), 2: (2,), 3: (1, 0, 1), 4: (0,), 5: (5,)}
    alignment = align(source, target, maps=maps)
    assert reasons(alignment) == ["copied", "mapped", "mapped", "missing", "mapped", "mapped"]
    assert alignment.notes == {}
    segmentation = segment(source, target, alignment)
    assert segmentation.piece.tolist() == [1, 0, 1]
    assert segmentation.token_length.tolist() == [3]


@pytest.mark.parametrize(
    ("name", "content"), [("m.json", '{"x": "b"}'), ("m.yaml", "x: b\n"), ("m.txt", "x\tb\n"), ("m.tsv", "x\tb\r\n\n")]
)
def test_map_files(name, content, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert parse_maps([], tmp_path / name, OLD, letters_vocab([b"x"])) == {0: (1,)}


@pytest.mark.parametrize("pair", ["nothing", "=", "x=", "absent=a", "x=zzz", "#9=a"])
def test_maps_that_name_nothing_are_refused(pair):
    with pytest.raises(RequestError) as caught:
        parse_maps([pair], None, OLD, letters_vocab([b"x"]))
    assert caught.value.hint


@pytest.mark.parametrize(("name", "content"), [("m.json", "[1]"), ("m.json", "{"), ("m.yaml", "- a"), ("m.tsv", "a b")])
def test_map_files_of_no_form_are_refused(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(RequestError):
        parse_maps([], tmp_path / name, OLD, OLD)
    with pytest.raises(RequestError, match="cannot be read"):
        parse_maps([], tmp_path / "absent.tsv", OLD, OLD)


def test_a_map_to_an_id_without_a_row_is_refused():
    with pytest.raises(RequestError, match="2 rows"):
        align(OLD, letters_vocab([b"x"]), maps={0: (2,)}, source_rows=2)


# ids of configurations


def test_ids_are_translated_by_role_then_by_row():
    source = letters_vocab([b"a", b"b", b"c"], special={"bos_token": "<s>", "eos_token": "<e>"})
    target = letters_vocab([b"b", b"a"], special={"bos_token": "<begin>", "eos_token": "<stop>"})
    alignment = align(source, target)
    assert id_map(source, target, alignment) == {0: 1, 1: 0, 3: target.roles["bos"], 4: target.roles["eos"]}


def test_of_two_target_tokens_with_equal_bytes_the_produced_one_answers():
    """Trap 12 seen from the other side."""
    source, target = letters_vocab([b"b", b"a"]), doubled()
    assert id_map(source, target, align(source, target)) == {0: 2, 1: 1}
