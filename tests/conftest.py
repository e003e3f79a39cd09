from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.tiny import FAMILIES, save_tiny, tiny_tokenizer

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
BENCH = Path(os.environ.get("TOKENADAPT_BENCH", Path.home() / ".cache" / "tokenadapt-bench"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """What tests store of models is not kept, and not found by a user's next run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENADAPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", params=FAMILIES)
def any_tokenizer(request):
    """A tiny tokenizer of each family that users bring."""
    return tiny_tokenizer(request.param)


@pytest.fixture(scope="session")
def tokenizers():
    """All tiny tokenizers by family."""
    return {family: tiny_tokenizer(family) for family in FAMILIES}


@pytest.fixture(scope="session", params=["tied", "untied"])
def tiny_checkpoint(request, tmp_path_factory, tokenizers):
    """A folder with a tiny Llama and a byte-level tokenizer, read only: 8 rows more than tokens."""
    folder = tmp_path_factory.mktemp("tiny") / request.param
    return save_tiny(folder, tokenizers["bytelevel-bpe"], tied=request.param == "tied", extra_rows=8)


@pytest.fixture(scope="session")
def bench():
    """The folder of real models and tokenizers; its tests carry the marker `real`."""
    if not BENCH.is_dir():
        pytest.skip(f"no bench folder at {BENCH}; set TOKENADAPT_BENCH")
    return BENCH
