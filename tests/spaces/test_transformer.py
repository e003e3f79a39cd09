from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from tests.spaces.conftest import make_setting
from tokenadapt.errors import MissingExtraError, RequestError
from tokenadapt.spaces.open import open_space
from tokenadapt.spaces.options import SpaceOptions
from tokenadapt.spaces.pooling import Usage
from tokenadapt.spaces.transformer import TransformerEncoder, content_of, longest_input

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "dog", "cat", "query", ":", *(f"w{n}" for n in range(60)))


def make_tokenizer():
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    """A tiny BERT without a limit in its tokenizer: model_max_length is the sentinel 1e30."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def plain(folder, text, pooling="mean"):
    """One string at a time, without padding: what batches must agree with."""
    ids = torch.tensor([make_tokenizer()(text)["input_ids"]])
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder)(input_ids=ids)[0][0]
    vector = (states.mean(dim=0) if pooling == "mean" else states[0]).numpy()
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_batched_vectors_equal_plain_ones(cache_dir, encoder_folder, pooling):
    texts = ["red dog", "cat", "w1 w2 w3 w4 w5 w6", "red red dog cat w9"]
    made = TransformerEncoder(str(encoder_folder), SpaceOptions(pooling=pooling, batch_tokens=24))
    expected = [plain(encoder_folder, text, pooling) for text in texts]
    np.testing.assert_allclose(made.encode_texts(texts), expected, atol=2e-3)
    again = TransformerEncoder(str(encoder_folder), SpaceOptions(pooling=pooling, batch_tokens=24))
    again.encode = None  # nothing is left to encode
    assert np.array_equal(again.encode_texts(texts[::-1]), made.encode_texts(texts)[::-1])


def test_strings_that_the_encoder_reads_alike_are_encoded_once(cache_dir, encoder_folder):
    made = TransformerEncoder(str(encoder_folder), SpaceOptions())
    rows = made.encode_texts(["Dog", "dog", "DOG  ", "zzz", "", "cat zzz"])
    assert len(made.stored.cache) == 2
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2])
    assert not rows[3:5].any()  # unknown, and nothing
    assert rows[5].any()


def test_a_prefix_is_read_and_on_request_not_pooled(cache_dir, encoder_folder):
    with_prefix = TransformerEncoder(str(encoder_folder), SpaceOptions(prefix="query: "))
    rows = with_prefix.encode_texts(["dog", "zzz"])
    np.testing.assert_allclose(rows[0], plain(encoder_folder, "query: dog"), atol=2e-3)
    assert not rows[1].any()
    with_prefix.usage = Usage(prefix="query: ", pool_prefix=False)
    ids = with_prefix._tokenize(["query: dog"])
    states = AutoModel.from_pretrained(encoder_folder)(input_ids=torch.tensor(ids))[0][0].detach().numpy()
    expected = states[3:].mean(axis=0)  # [CLS] query : | dog [SEP]
    np.testing.assert_allclose(with_prefix.encode(ids)[0], expected / np.linalg.norm(expected), atol=1e-5)


def test_a_string_longer_than_the_positions_is_cut(cache_dir, encoder_folder):
    made = TransformerEncoder(str(encoder_folder), SpaceOptions())
    assert made.limit == 40
    assert made.encode_texts(["red " * 200]).any()


def test_limits_ignore_the_sentinel():
    class Holder:
        def __init__(self, **values):
            self.__dict__.update(values)

    sentinel = Holder(model_max_length=int(1e30))
    assert longest_input(sentinel, Holder(), Usage()) == 512
    assert longest_input(sentinel, Holder(max_position_embeddings=514), Usage()) == 506
    assert longest_input(Holder(model_max_length=128), Holder(max_position_embeddings=512), Usage(longest=100)) == 100


def test_bfloat16_is_near_and_stored_apart(cache_dir, encoder_folder):
    exact = TransformerEncoder(str(encoder_folder), SpaceOptions()).encode_texts(["red dog"])
    near = TransformerEncoder(str(encoder_folder), SpaceOptions(precision="bfloat16")).encode_texts(["red dog"])
    assert 0.99 < float((exact * near).sum()) < 1.0


def test_the_encoder_of_an_encoder_decoder(cache_dir, tmp_path):
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assert TransformerEncoder(str(tmp_path), SpaceOptions()).encode_texts(["red dog"]).shape == (1, 16)


def test_tokens_their_neighbours_and_only_what_is_needed(cache_dir, encoder_folder):
    old = [None, b"red", b" dog", b"dog", b"DOG", b"\xff", b" cat", b"w1", b"w2"]
    setting = vars(make_setting(old, [b"red", b" red cat", b"\xff\xff", b"dog cat"]))
    space = open_space(f"hf:{encoder_folder}", **setting)
    assert not space.missing(np.arange(3))[1].any()
    assert len(space.vectors.encoder.stored.cache) == 4  # `red cat`, `dog cat` and the pieces of the latter
    ids, cosines = space.neighbours(2)
    names = [1, 2, 6, 7, 8]  # `dog` and `DOG` have the vector of ` dog`
    score = space.missing(np.arange(3)) @ space.source(np.array(names)).T
    assert ids[0].tolist() == [names[i] for i in np.argsort(-score[0])[:2]]
    assert ids[1].tolist() == [-1, -1]
    assert space.candidates.left_out["with another's vector"] == 2
    np.testing.assert_allclose(cosines[0], np.sort(score[0])[::-1][:2], atol=1e-6)


RANK = """
import os, sys, numpy as np
from tests.spaces.conftest import make_setting
from tokenadapt.spaces.open import open_space
from tokenadapt.spaces.transformer import TransformerEncoder
encoded, plain = [], TransformerEncoder.encode
TransformerEncoder.encode = lambda self, batch: (encoded.extend(batch), plain(self, batch))[1]
setting = vars(make_setting([b"red", b"dog"], [b"w%d" % n for n in range(60)]))
for folders in ("shared", "apart"):
    encoded.clear()
    os.environ["TOKENADAPT_CACHE"] = os.path.join(sys.argv[2], folders, os.environ["RANK"] * (folders == "apart"))
    space = open_space(f"hf:{sys.argv[1]}:batch_tokens=24", **setting)
    shared = len(encoded)
    rows = np.concatenate((space.source(np.arange(2)), space.missing(np.arange(60))))
    assert len(encoded) == shared, "nothing is encoded after the shared part"
    said = f"{folders} {shared} {float(rows.sum()):.4f} {int(rows.any(axis=1).sum())}"
    open(f"{sys.argv[2]}-{folders}-{os.environ['RANK']}.txt", "w").write(said)  # stdout belongs to gloo as well
"""


def test_two_ranks_of_torchrun_share_the_work_with_and_without_a_common_file_system(encoder_folder, tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*command, str(script), str(encoder_folder), str(tmp_path / "caches")],
        env={**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = sorted(path.read_text().split() for path in tmp_path.glob("caches-*.txt"))
    assert [line[0] for line in lines] == ["apart", "apart", "shared", "shared"]
    for first, second in (lines[:2], lines[2:]):
        counts = int(first[1]), int(second[1])
        assert sum(counts) == 62
        assert min(counts) >= 24
        assert first[2:] == second[2:]
        assert first[3] == "62"


def test_what_an_encoder_is(encoder_folder, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({}))
        (tmp_path / name / "README.md").write_text(name)
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text("{ }")
    assert content_of(tmp_path / "a") != content_of(tmp_path / "b")
    assert content_of(tmp_path / "snapshots" / ("ab" * 20)) == "ab" * 20


def test_encoders_that_cannot_be_loaded(cache_dir, tmp_path, encoder_folder, monkeypatch):
    with pytest.raises(RequestError, match="no model at"):
        TransformerEncoder("./nowhere", SpaceOptions())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    with pytest.raises(RequestError, match="cannot load"):
        TransformerEncoder(str(tmp_path), SpaceOptions())
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModel": "mine.M"}})
    )
    (tmp_path / "mine.py").write_text("raise SystemExit('code of a stranger ran')")
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="brings its own code") as caught:
        TransformerEncoder(str(tmp_path), SpaceOptions())
    assert "--trust-remote-code" in caught.value.hint
    with pytest.raises(RequestError, match="no device"):
        TransformerEncoder(str(encoder_folder), SpaceOptions(device="abacus"))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError) as missing:
        open_space(f"st:{encoder_folder}", **vars(make_setting([b"a"], [b"b"])))
    assert missing.value.hint == "Install it with: pip install 'tokenadapt[st]'"


def test_pickled_weights_are_not_read(cache_dir, tmp_path, encoder_folder):
    for path in encoder_folder.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save(BertModel.from_pretrained(encoder_folder).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(RequestError, match="cannot load"):
        TransformerEncoder(str(tmp_path), SpaceOptions()).encode_texts(["red"])


@pytest.mark.real
def test_a_real_sentence_encoder_knows_its_animals(cache_dir, bench):
    folder = bench / "minilm"
    if "model_type" not in json.loads((folder / "config.json").read_text()):
        pytest.skip("this copy of the encoder has lost its config.json")
    made = TransformerEncoder(str(folder), SpaceOptions())
    dog, puppy, algebra, upper, unknown = made.encode_texts(["dog", "puppy", "algebra", "DOG", "你好"])
    assert dog @ puppy > 0.7 > 0.4 > dog @ algebra
    assert np.array_equal(dog, upper)
    assert not unknown.any()
    assert made.limit == 256
