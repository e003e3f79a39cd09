"""`ofa` with its two factors: they multiply to the new rows, loaders do not mind them, and a change in them shows.

Run: scripts/test tests/test_factors.py
"""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny import LINES
from tokenadapt.checkpoint.factors import COPIED, NEW, UNUSED, Factored, write_factors
from tokenadapt.checkpoint.saved_plan import load_plan
from tokenadapt.checkpoint.verify import verify
from tokenadapt.errors import RequestError
from tokenadapt.recipe import TransplantOptions
from tokenadapt.transplant import transplant

RANK = 5
TABLES = {"input": "model.embed_tokens.weight", "output": "lm_head.weight"}


@pytest.fixture(scope="module")
def target(tokenizers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("target")
    tokenizers["unigram"].save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "words.vec"
    drawn = np.random.default_rng(0)
    found = sorted({word for line in LINES for word in line.split()})
    path.write_text("".join(f"{word} {' '.join(map(str, drawn.normal(size=6)))}\n" for word in found), encoding="utf-8")
    return path


def run(model, target, output, method, **more):
    return transplant(TransplantOptions(str(model), str(target), str(output), method=method, **more))


@pytest.fixture(scope="module")
def made(tiny_checkpoint, target, words, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "out"
    run(tiny_checkpoint, target, out, f"ofa:vectors={words},keep_dim={RANK},factors=true", fallback="pieces")
    return out


def test_the_factors_multiply_to_the_new_rows_and_come_as_near_as_they_can_to_the_others(made, tokenizers):
    in_words = {index for line in LINES for index in tokenizers["unigram"](line, add_special_tokens=False)["input_ids"]}
    factors, tables = load((made / "transplant.factors").read_bytes()), load_file(made / "model.safetensors")
    manifest, alignment = json.loads((made / "transplant.json").read_text()), load_plan(made).alignment
    assert {name.split(".")[0] for name in factors} == set(manifest["tables"])
    for role, told in manifest["factors"].items():
        table, F, P = tables[TABLES[role]].double(), factors[f"{role}.F"].double(), factors[f"{role}.P"].double()
        assert factors[f"{role}.F"].dtype == torch.float32
        assert (F.shape, P.shape) == ((len(table), RANK), (RANK, table.shape[1]))
        torch.testing.assert_close(P @ P.T, torch.eye(RANK).double(), atol=1e-6, rtol=0)
        left = (table - F @ P).square().sum(1)
        torch.testing.assert_close(left, (table - table @ P.T @ P).square().sum(1), atol=1e-6, rtol=1e-4)
        inside = sorted(in_words & set(alignment.missing.tolist()))  # the fallback made the others
        assert len(inside) > 10
        torch.testing.assert_close((F @ P)[inside], table[inside], atol=1e-6, rtol=0)
        for key, ids in (("lost_new", alignment.missing), ("lost_copied", np.flatnonzero(alignment.source_id >= 0))):
            share = float(left[ids].sum() / table[ids].square().sum())
            assert told[key] == pytest.approx(share, abs=1e-5)
        assert told["rank"] == RANK
        assert told["lost_new"] < told["lost_copied"]


def test_loaders_do_not_see_them(made):
    model, told = AutoModelForCausalLM.from_pretrained(made, output_loading_info=True)
    assert not told["unexpected_keys"]
    assert not told["missing_keys"]
    assert torch.isfinite(
        model(torch.tensor([AutoTokenizer.from_pretrained(made)(LINES[0])["input_ids"]])).logits
    ).all()
    assert verify(made, level="full").ok


def test_beside_shards_too(tiny_checkpoint, target, words, tmp_path):
    AutoModelForCausalLM.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path / "in", max_shard_size="40KB")
    AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path / "in")
    assert (tmp_path / "in" / "model.safetensors.index.json").is_file()
    run(tmp_path / "in", target, tmp_path / "out", f"ofa:vectors={words},keep_dim={RANK},factors=true")
    _, told = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not told["unexpected_keys"]
    assert not told["missing_keys"]
    assert (tmp_path / "out" / "transplant.factors").is_file()


def test_a_changed_or_lost_file_is_found(tiny_checkpoint, target, words, tmp_path):
    out = tmp_path / "out"
    run(tiny_checkpoint, target, out, f"ofa:vectors={words},keep_dim={RANK},factors=true")
    assert verify(out, level="files").ok
    data = (out / "transplant.factors").read_bytes()
    (out / "transplant.factors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "transplant.factors has changed" in verify(out, level="files").summary
    (out / "transplant.factors").unlink()
    assert "transplant.factors is missing" in verify(out, level="files").summary


def test_the_card_says_what_is_lost(made):
    card = (made / "README.md").read_text(encoding="utf-8")
    told = json.loads((made / "transplant.json").read_text())["factors"]
    for role, one in told.items():
        assert f"| {role} | {RANK} | {one['lost_new']:.1%} | {one['lost_copied']:.1%} |" in card
    assert "`transplant.factors` (safetensors)" in card


def test_without_the_option_there_is_none_and_the_model_is_the_same(made, tiny_checkpoint, target, words, tmp_path):
    out = tmp_path / "out"
    run(tiny_checkpoint, target, out, f"ofa:vectors={words},keep_dim={RANK}", fallback="pieces")
    assert not (out / "transplant.factors").exists()
    assert (out / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
    assert "transplant.factors" not in (out / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in made.iterdir()} - {path.name for path in out.iterdir()} == {"transplant.factors"}


def test_what_follows_the_method_keeps_them(tiny_checkpoint, target, words, tmp_path):
    """Rows moved out of P's span by a calibration: the factors are those of the written table, and say so."""
    out, method = tmp_path / "out", f"ofa:vectors={words},keep_dim={RANK},factors=true"
    run(tiny_checkpoint, target, out, method, untie=True, calibrate_norm=True, bias_per_piece=-0.5)
    factors, tables = load((out / "transplant.factors").read_bytes()), load_file(out / "model.safetensors")
    told = json.loads((out / "transplant.json").read_text())["factors"]
    for role in ("input", "output"):
        P = factors[f"{role}.P"]
        torch.testing.assert_close(factors[f"{role}.F"], tables[TABLES[role]] @ P.T, atol=1e-5, rtol=1e-5)
        assert 0 < told[role]["lost_new"] < 1


@pytest.mark.parametrize("options", ["factors=true", "factors=true,keep_dim=100000"])
def test_factors_of_no_lower_rank_are_refused(tiny_checkpoint, target, words, tmp_path, options):
    with pytest.raises(RequestError, match="below the model's width"):
        run(tiny_checkpoint, target, tmp_path / "out", f"ofa:vectors={words},{options}")
    assert list(tmp_path.iterdir()) == []


def test_losses_by_hand(tmp_path):
    """P keeps the first direction: (3, 4) loses 16 of 25, (1, 0) nothing; the unused row is no one's loss."""
    blocks = (torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 9.0]]))
    table = Factored(lambda: iter(blocks), torch.tensor([[1.0, 0.0]]), np.array([NEW, COPIED, UNUSED]))
    told = write_factors(tmp_path / "f", {"input": table})
    assert told == {"input": {"rank": 1, "lost_new": pytest.approx(0.64), "lost_copied": 0.0}}
    stored = load((tmp_path / "f").read_bytes())
    assert stored["input.F"].tolist() == [[3.0], [1.0], [0.0]]
    assert stored["input.P"].tolist() == [[1.0, 0.0]]
