from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.spaces.conftest import make_setting
from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.spaces.open import open_space
from tokenadapt.spaces.static import StaticEncoder

TABLE = torch.tensor([[9.0, 9], [1, 0], [0, 1], [1, 1]])


@pytest.fixture
def folder(tmp_path):
    """A static table of three words; [unk] has a row that must not count."""
    words = Tokenizer(models.WordLevel({"[unk]": 0, "red": 1, "dog": 2, "cat": 3}, unk_token="[unk]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    save_file({"embeddings": TABLE}, tmp_path / "model.safetensors")
    return tmp_path


def test_a_string_is_the_mean_of_its_known_tokens(folder):
    made = StaticEncoder(folder).encode_texts(["red dog", "red what", "what", "dog dog red"])
    half = 0.5**0.5
    np.testing.assert_allclose(made, [[half, half], [1, 0], [0, 0], [0.2**0.5, 0.8**0.5]], atol=1e-6)


def test_weights_and_mapping_of_model2vec(folder):
    tensors = {"embeddings": TABLE[1:], "mapping": torch.tensor([0, 0, 1, 2]), "weights": torch.tensor([1.0, 3, 1])}
    save_file(tensors, folder / "model.safetensors")
    made = StaticEncoder(folder).encode_texts(["red dog"])
    np.testing.assert_allclose(made, [[0.1**0.5, 0.9**0.5]], atol=1e-6)


def test_tokens_of_a_space_and_their_neighbours(folder):
    old = [None, b"red", b" dog", b"dog", b"\xff", b" cat", b"  "]
    setting = make_setting(old, [b"red", b" red cat", b"\xff\xff", b"Dog", b" red"])
    space = open_space(f"static:{folder}", **vars(setting))
    half = 0.5**0.5
    old_rows = [[0, 0], [1, 0], [0, 1], [0, 1], [0, 0], [half, half], [0, 0]]
    np.testing.assert_allclose(space.source(np.arange(7)), old_rows, atol=1e-6)
    cat = np.array([2, 1]) / 5**0.5
    np.testing.assert_allclose(space.missing(np.arange(4)), [cat, [0, 0], [0, 0], [1, 0]], atol=1e-6)
    ids, cosines = space.neighbours(2)
    assert ids.tolist() == [[5, 1], [-1, -1], [-1, -1], [1, 5]]
    np.testing.assert_allclose(cosines[0], [3 / 10**0.5, 2 / 5**0.5], atol=1e-6)


def test_a_vocabulary_of_one_token(folder):
    space = open_space(f"static:{folder}", **vars(make_setting([b"dog"], [b"cat"])))
    ids, cosines = space.neighbours(3)
    assert ids.tolist() == [[0, -1, -1]]
    np.testing.assert_allclose(cosines, [[0.5**0.5, 0, 0]], atol=1e-6)


def test_faulty_folders_are_named(folder, tmp_path):
    setting = vars(make_setting([b"dog"], [b"cat"]))
    with pytest.raises(RequestError, match="no static table at"):
        open_space("static:/nowhere/at/all", **setting)
    save_file({"a": TABLE, "b": TABLE.clone()}, folder / "model.safetensors")
    with pytest.raises(RequestError, match="2 matrices"):
        StaticEncoder(folder)
    (folder / "model.safetensors").write_bytes(b"\0" * 30)
    with pytest.raises(TokenAdaptError, match="no readable safetensors"):
        StaticEncoder(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(RequestError, match="no tokenizer"):
        StaticEncoder(folder)
