from __future__ import annotations

import gzip

import numpy as np
import pytest

from tests.spaces.conftest import make_setting
from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.spaces.open import open_space
from tokenadapt.spaces.wordvectors import WordVectors

BODY = "the 1 0\nDog 0 1\ndog 1 1\nice\u00a0cream 0.6 0.8\nthe 9 9\nnew york 3 4\n"


def write(folder, text, name="words.vec"):
    path = folder / name
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


@pytest.mark.parametrize("name", ["words.vec", "words.txt.gz"])
@pytest.mark.parametrize("head", ["6 2\n", ""])
def test_words_cases_and_means(tmp_path, name, head):
    made = WordVectors(write(tmp_path, head + BODY, name))
    half = 0.5**0.5
    rows = made.encode_texts(["the", "Dog", "DOG", "THE dog what", "what", "ice\u00a0cream", "new york"])
    expected = [[1, 0], [0, 1], [half, half], [2 / 5**0.5, 1 / 5**0.5], [0, 0], [0.6, 0.8], [0.6, 0.8]]
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_as_a_space(tmp_path):
    path = write(tmp_path, BODY)
    space = open_space(f"static:{path}", **vars(make_setting([b"the", b"dog", b" Dog"], [b" the dog", b"zz"])))
    assert space.neighbours(1)[0].tolist() == [[1], [-1]]


def test_faulty_files(tmp_path):
    with pytest.raises(RequestError, match="no word vectors as text"):
        WordVectors(write(tmp_path, "some prose in a file\n"))
    with pytest.raises(RequestError, match="no word vectors as text"):
        WordVectors(write(tmp_path, ""))
    with pytest.raises(TokenAdaptError, match="line 2"):
        WordVectors(write(tmp_path, "a 1 2\nb 1 x\n")).encode_texts(["b"])
    packed = write(tmp_path, BODY * 50, "words.gz")
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(TokenAdaptError, match="cannot be read to its end"):
        WordVectors(packed).encode_texts(["nowhere"])
