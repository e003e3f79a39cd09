"""Chat templates: whose is taken, whether the vocabulary can say it, and what carrying it changes."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken

from tests.tiny import tiny_tokenizer
from tokenadapt.checkpoint.chat import carry_chat, choose_template, markers, single, turn_end
from tokenadapt.vocab.load import LoadedTokenizer, load_tokenizer

CHATML = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PLAIN = "{% for m in messages %}### {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
STERN = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML


def loaded(tmp_path, *, template=None, marks=(), special=True, family="bytelevel-bpe"):
    tokenizer = tiny_tokenizer(family)
    tokenizer.add_tokens([AddedToken(mark, special=special, normalized=False) for mark in marks])
    tokenizer.chat_template = template
    return LoadedTokenizer("tiny", tmp_path, tokenizer)


MARKS = ("<|im_start|>", "<|im_end|>")


def test_markers_are_the_added_tokens_that_a_conversation_shows_without_the_roles(tmp_path):
    chat = loaded(tmp_path, template=CHATML, marks=(*MARKS, "<|tool|>"))
    assert markers(chat, CHATML) == MARKS
    assert markers(chat, STERN) == MARKS
    assert markers(chat, PLAIN) == ()


def test_the_targets_own_template_wins_and_new_markers_are_named(tmp_path):
    source = loaded(tmp_path, template=PLAIN)
    chosen = choose_template(source, loaded(tmp_path, template=CHATML, marks=MARKS))
    assert chosen.template == CHATML
    assert chosen.untaught == MARKS
    assert "never saw" in chosen.reason


def test_the_sources_template_where_each_marker_is_one_token(tmp_path):
    source = loaded(tmp_path, template=CHATML, marks=MARKS)
    assert choose_template(source, loaded(tmp_path, marks=MARKS)).template == CHATML


def test_no_template_where_the_target_splits_a_marker(tmp_path):
    source = loaded(tmp_path, template=CHATML, marks=MARKS)
    chosen = choose_template(source, loaded(tmp_path, marks=MARKS[:1]))
    assert chosen.template is None
    assert chosen.split == MARKS[1:]
    assert "--carry-chat" in chosen.reason


def test_a_template_of_plain_text_needs_no_marker(tmp_path):
    assert choose_template(loaded(tmp_path, template=PLAIN), loaded(tmp_path)).template == PLAIN


def test_neither_has_one(tmp_path):
    assert choose_template(loaded(tmp_path), loaded(tmp_path)).template is None


@pytest.mark.parametrize("family", ["bytelevel-bpe", "sentencepiece-bpe", "unigram", "wordpiece"])
def test_carried_markers_are_single_special_tokens_after_the_last_id(tmp_path, family):
    source = loaded(tmp_path, template=CHATML, marks=MARKS)
    target = loaded(tmp_path, family=family)
    before = target.backend.get_vocab(with_added_tokens=True)
    carried, added = carry_chat(target, source)
    assert added == MARKS
    assert [single(carried, mark) for mark in MARKS] == [len(before), len(before) + 1]
    after = carried.backend.get_vocab(with_added_tokens=True)
    assert {token: after[token] for token in before} == before
    assert target.backend.get_vocab(with_added_tokens=True) == before  # the one that was given is as it was
    chosen = choose_template(source, carried)
    assert chosen.template == CHATML
    assert "source's" in chosen.reason
    text = carried.fast.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert text == "<s><|im_start|>user\nhi<|im_end|>\n"


def test_carrying_adds_only_what_is_lacking(tmp_path):
    source = loaded(tmp_path, template=CHATML, marks=MARKS)
    _, added = carry_chat(loaded(tmp_path, marks=MARKS[:1]), source)
    assert added == MARKS[1:]
    assert carry_chat(loaded(tmp_path), loaded(tmp_path))[1] == ()


def test_the_token_that_ends_a_turn(tmp_path):
    chat = loaded(tmp_path, template=CHATML, marks=MARKS)
    assert turn_end(chat, CHATML) == chat.backend.token_to_id("<|im_end|>")
    eos = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    assert turn_end(chat, eos) == chat.backend.token_to_id("</s>")
    assert turn_end(chat, PLAIN) is None
    assert turn_end(chat, None) is None
    assert turn_end(chat, {"default": CHATML, "tool": PLAIN}) == chat.backend.token_to_id("<|im_end|>")


def test_a_template_cannot_reach_the_machine(tmp_path):
    wild = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    assert markers(loaded(tmp_path, marks=MARKS), wild) == ()


@pytest.mark.real
def test_real_templates(bench):
    source = load_tokenizer(str(bench / "smollm2"))
    assert markers(source, source.fast.chat_template) == MARKS
    for name, split in (("gpt2", MARKS), ("qwen3", ()), ("llama3", ())):
        assert choose_template(source, load_tokenizer(str(bench / name))).split == split
    llama = load_tokenizer(str(bench / "llama3"))
    assert turn_end(llama, llama.fast.chat_template) == 128009
