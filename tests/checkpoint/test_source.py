"""A checkpoint's vocabulary is found in any layout; what cannot be transplanted safely is refused in one sentence."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.checkpoint.files import AUTO, MODELS, ROWS, edit_json, rewrite, save
from tokenadapt.checkpoint.shards import make_header, read_shard
from tokenadapt.checkpoint.source import open_source
from tokenadapt.checkpoint.tables import check_finite
from tokenadapt.errors import RequestError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
EXPECTED = {  # name: kind, tied, input, output, biases
    "llama-tied": ("causal", True, "model.embed_tokens.weight", None, []),
    "llama-untied": ("causal", False, "model.embed_tokens.weight", "lm_head.weight", []),
    "llama-bf16": ("causal", False, "model.embed_tokens.weight", "lm_head.weight", []),
    "llama-fp16": ("causal", True, "model.embed_tokens.weight", None, []),
    "gemma3-nested": ("causal", True, "language_model.model.embed_tokens.weight", None, []),
    "bert": ("masked", True, "bert.embeddings.word_embeddings.weight", None, ["cls.predictions.bias"]),
    "t5": ("seq2seq", True, "shared.weight", None, []),
    "bart": ("seq2seq", True, "model.shared.weight", None, ["final_logits_bias"]),
    "phi-bias": ("causal", False, "model.embed_tokens.weight", "lm_head.weight", ["lm_head.bias"]),
}


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize("name", MODELS)
def test_the_vocabulary_is_found(name, sharded, tmp_path):
    source = open_source(save(name, tmp_path, sharded=sharded))
    output = source.tables.get("output")
    found = (
        source.kind,
        source.tied,
        source.tables["input"].name,
        output and output.name,
        [ref.name for ref in source.biases],
    )
    assert found == EXPECTED[name]
    assert (source.rows, source.width) == (ROWS, 16)
    assert source.tie_flag is None
    assert source.notes == ()
    assert len(source.shards) > 1 if sharded else len(source.shards) == 1


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_those_that_the_loaded_model_has(name, tmp_path):
    source = open_source(save(name, tmp_path))
    model = AUTO[source.kind].from_pretrained(tmp_path, dtype="auto")
    ids = np.array([299, 0, 7, 7, 150])
    for role, module in {"input": model.get_input_embeddings(), "output": model.get_output_embeddings()}.items():
        rows = source.table(role).rows(ids)
        assert rows.dtype == source.table(role).dtype == module.weight.dtype
        assert torch.equal(rows, module.weight[torch.from_numpy(ids)])
    for ref in source.biases:
        assert torch.equal(source.bias(ref), model.state_dict()[ref.name])


def test_positions_are_the_models(tmp_path):
    assert open_source(save("llama-tied", tmp_path / "a")).positions == 64
    assert open_source(save("t5", tmp_path / "b")).positions is None


def test_opening_reads_headers_only(tmp_path, monkeypatch):
    """Tables and layers could be gone after the header: opening would not notice."""
    folder = save("llama-untied", tmp_path)
    data = (folder / SINGLE).read_bytes()
    length = int.from_bytes(data[:8], "little")
    with (folder / SINGLE).open("r+b") as file:
        file.truncate(8 + length)
        file.truncate(len(data))  # a sparse file: all numbers are zero
    source = open_source(folder)
    assert not source.table("input").rows(np.arange(ROWS)).any()


# Trap 7: the flag and the file contradict each other.


def test_a_flag_that_ties_two_different_tables_is_not_believed(tmp_path):
    folder = save("llama-untied", tmp_path)
    edit_json(folder / "config.json", tie_word_embeddings=True)
    source = open_source(folder)
    assert not source.tied
    assert source.tie_flag is False
    assert "taken as two tables" in source.notes[0]
    model = AUTO["causal"].from_pretrained(folder)  # the library loads the same way
    assert torch.equal(model.lm_head.weight, source.table("output").rows(np.arange(ROWS)))
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_a_flag_that_unties_a_file_without_a_head_is_not_believed(tmp_path):
    folder = save("llama-tied", tmp_path)
    edit_json(folder / "config.json", tie_word_embeddings=False)
    source = open_source(folder)
    assert source.tied
    assert source.tie_flag is True
    assert "taken as tied" in source.notes[0]


def test_equal_tables_under_an_untied_flag_stay_two(tmp_path):
    folder = save("llama-untied", tmp_path)
    rewrite(folder, lambda held: held.update({"lm_head.weight": held["model.embed_tokens.weight"].clone()}))
    source = open_source(folder)
    assert (source.tied, source.tie_flag, source.notes) == (False, None, ())


def test_a_tied_table_may_stand_under_the_heads_name(tmp_path):
    folder = save("llama-tied", tmp_path)
    rewrite(folder, lambda held: held.update({"lm_head.weight": held.pop("model.embed_tokens.weight")}))
    source = open_source(folder)
    assert source.tied
    assert source.tables["input"].name == "lm_head.weight"


def test_t5_with_a_head_of_its_own(tmp_path):
    """Its code ties always, by the flag it scales: the file alone says that the head is another table."""
    folder = save("t5", tmp_path)
    rewrite(folder, lambda held: held.update({"lm_head.weight": torch.ones(ROWS, 16)}))
    edit_json(folder / "config.json", tie_word_embeddings=False)
    source = open_source(folder)
    assert (source.tied, source.tie_flag, source.notes) == (False, None, ())


def test_copies_of_a_shared_table_are_known(tmp_path):
    folder = save("t5", tmp_path)
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    rewrite(folder, lambda held: held.update({name: held["shared.weight"].clone() for name in names}))
    source = open_source(folder)
    assert source.tables["input"].name == "shared.weight"
    assert {ref.name for ref in source.copies["input"]} == set(names)


# Names that are spelled otherwise than the code spells them.


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("llama-untied", "model.", ""),  # saved from the base model
        ("bert", "bert.", "bert."),
        ("gemma3-nested", "language_model.model.", "model.language_model."),
        ("gemma3-nested", "language_model.model.", "odd.place."),  # by the last two parts of the name
    ],
)
def test_other_spellings_of_names_are_found(name, old, new, tmp_path):
    folder = save(name, tmp_path)

    def respell(held):
        for key in list(held):
            if key.startswith(old):
                held[new + key.removeprefix(old)] = held.pop(key)

    rewrite(folder, respell)
    source = open_source(folder)
    assert source.tables["input"].name == EXPECTED[name][2].replace(old, new)
    assert source.table("input").rows(np.arange(3)).shape == (3, 16)


# What is refused.


def refused(folder, **options) -> str:
    with pytest.raises(RequestError) as caught:
        open_source(folder, **options)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_empty_and_partial_folders(tmp_path):
    assert "no model folder" in refused(tmp_path / "none")
    assert "has no config.json" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "cannot be read as JSON" in refused(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert "no JSON object" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "holds neither model.safetensors nor" in refused(tmp_path)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("pytorch_model.bin", "pickles can run any code"),
        ("model-q4.gguf", "GGUF"),
        ("adapter_config.json", "is an adapter"),
    ],
)
def test_other_formats_are_refused_with_the_remedy(file, message, tmp_path):
    folder = save("llama-tied", tmp_path)
    (folder / SINGLE).rename(folder / file)
    assert message in refused(folder)


def test_unknown_and_unsuitable_models(tmp_path):
    folder = save("llama-tied", tmp_path)
    edit_json(folder / "config.json", architectures=["LlamaForSequenceClassification"])
    assert "is no language model with a head" in refused(folder)
    edit_json(folder / "config.json", architectures=["LlamaForCausalLM"], model_type="no-such-model")
    assert "does not understand" in refused(folder)
    edit_json(folder / "config.json", model_type="llama", hidden_size="wide")
    assert "config.json" in refused(folder)


def test_two_vocabularies_are_refused(tmp_path):
    import transformers

    tiny = {"vocab_size": ROWS, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = transformers.BertConfig(**tiny)
    decoder = transformers.BertConfig(**tiny, is_decoder=True, add_cross_attention=True)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    transformers.EncoderDecoderModel(config).save_pretrained(tmp_path / "pair")
    assert "vocabularies of their own" in refused(tmp_path / "pair")
    folder = save("t5", tmp_path / "t5")
    other = {"decoder.embed_tokens.weight": torch.ones(ROWS, 16)}
    rewrite(folder, lambda held: held.update(other))
    assert "differ for one vocabulary" in refused(folder)


def test_tensors_over_the_vocabulary_that_are_not_understood(tmp_path):
    folder = save("llama-tied", tmp_path)
    extra = {"model.layers.2.shared_head.head.weight": torch.ones(ROWS, 16)}
    rewrite(folder, lambda held: held.update(extra))
    assert "shared_head" in refused(folder)
    extra = {"model.layers.2.embed_tokens.weight": torch.ones(ROWS, 16)}
    rewrite(folder, lambda held: (held.pop("model.layers.2.shared_head.head.weight"), held.update(extra)))
    assert "model.layers.2.embed_tokens.weight" in refused(folder)


def test_per_layer_embeddings_are_refused(tmp_path):
    import transformers

    config = transformers.Gemma3nTextConfig(
        vocab_size=ROWS, vocab_size_per_layer_input=ROWS - 8, hidden_size=16, hidden_size_per_layer_input=4,
        intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        layer_types=["full_attention"] * 2, num_kv_shared_layers=0, laurel_rank=4, altup_num_inputs=2,
        activation_sparsity_pattern=[0.0] * 2,
    )  # fmt: skip
    transformers.Gemma3nForCausalLM(config).save_pretrained(tmp_path)
    assert "embed_tokens_per_layer" in refused(tmp_path)


@pytest.mark.parametrize("beside", [{}, {"lm_head.weight_scale": torch.ones(1)}])
def test_quantised_tables_are_refused(beside, tmp_path):
    folder = save("llama-untied", tmp_path)
    kind = torch.float32 if beside else torch.int8
    rewrite(folder, lambda held: held.update({"lm_head.weight": held["lm_head.weight"].to(kind), **beside}))
    assert "quantised or packed" in refused(folder)


def test_a_packed_head_is_not_taken_for_a_tied_one(tmp_path):
    folder = save("llama-untied", tmp_path)

    def pack(held):
        del held["lm_head.weight"]
        held["lm_head.qweight"] = torch.zeros(2, ROWS, dtype=torch.int32)

    rewrite(folder, pack)
    assert "lm_head.qweight" in refused(folder)


def test_quantised_layers_beside_plain_tables_pass(tmp_path):
    folder = save("llama-untied", tmp_path)

    def pack(held):
        held["model.layers.0.mlp.up_proj.qweight"] = held.pop("model.layers.0.mlp.up_proj.weight").to(torch.int8)

    rewrite(folder, pack)
    assert open_source(folder).rows == ROWS


def test_a_table_that_contradicts_the_config(tmp_path):
    folder = save("llama-untied", tmp_path)
    edit_json(folder / "config.json", vocab_size=ROWS + 20)
    assert f"has shape [{ROWS}, 16], where config.json asks for [{ROWS + 20}, 16]" in refused(folder)
    edit_json(folder / "config.json", vocab_size=ROWS)
    rewrite(folder, lambda held: held.update({"lm_head.weight": torch.ones(ROWS - 10, 16)}))
    assert "lm_head.weight" in refused(folder)
    rewrite(folder, lambda held: held.pop("model.embed_tokens.weight"))
    assert "holds no table of token embeddings" in refused(folder)


REMOTE = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
class OddConfig(LlamaConfig):
    model_type = "odd-llama"
class OddForCausalLM(LlamaForCausalLM):
    config_class = OddConfig
"""


def test_code_that_comes_with_a_model_runs_only_on_request(tmp_path):
    folder = save("llama-tied", tmp_path)
    (folder / "odd.py").write_text(REMOTE)
    auto = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddForCausalLM"}
    edit_json(folder / "config.json", model_type="odd-llama", architectures=["OddForCausalLM"], auto_map=auto)
    assert "needs Python code that comes with it" in refused(folder)
    source = open_source(folder, trust_remote_code=True)
    assert (source.architecture, source.tied, source.rows) == ("OddForCausalLM", True, ROWS)


# Damaged files.


def test_damaged_shards_are_refused(tmp_path):
    folder = save("llama-untied", tmp_path)
    path = folder / SINGLE
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])

    def with_header(**changes) -> bytes:
        text = json.dumps({**header, **changes}).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    first = dict(next(value for name, value in header.items() if name != "__metadata__"))
    bad = {
        "cut short": data[:5],
        "header is cut short": data[: 8 + length // 2],
        "header promises": data[:-1],
        "follow its last tensor": data + b"x",
        "JSON": data[:8] + b"\xff" * length + data[8 + length :],
        "bytes, which its shape does not give": with_header(**{"model.norm.weight": {**first, "shape": [3]}}),
        "overlaps another or leaves a hole": with_header(extra=first),
        "impossible place": with_header(**{"model.norm.weight": {**first, "data_offsets": [9, 4]}}),
        "KeyError": with_header(extra={"dtype": "F32"}),
    }
    for message, content in bad.items():
        path.write_bytes(content)
        said = refused(folder)
        assert "no intact safetensors file" in said
        assert message in said or message in ("JSON",)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 2000), flip=st.integers(0, 255))
def test_any_damage_to_a_header_is_one_sentence_or_harmless(tmp_path_factory, cut, flip):
    path = tmp_path_factory.mktemp("x") / SINGLE
    save_file({"a": torch.ones(3), "b": torch.ones(2, 2)}, path)
    data = bytearray(path.read_bytes())
    data[cut % len(data)] ^= flip
    path.write_bytes(data)
    try:
        shard = read_shard(path)
    except RequestError:
        return
    assert sum(ref.nbytes for ref in shard.tensors) <= len(data)


def test_headers_are_written_as_the_reference_writes_them(tmp_path):
    path = tmp_path / SINGLE
    save_file({"b": torch.ones(3), "a": torch.ones(2, 2).half(), "é": torch.ones(1)}, path, metadata={"format": "pt"})
    shard = read_shard(path)
    head = make_header([(ref.name, ref.dtype, ref.shape, ref.nbytes) for ref in shard.tensors], shard.metadata)
    assert path.read_bytes().startswith(head)
    assert len(head) % 8 == 0
    assert make_header([], {}) == make_header([], {"format": "pt"})  # the loader refuses a file without it
    assert {ref.name for ref in shard.tensors} == set(load_file(path))


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..\\x", "C:\\x", "", ".."])
def test_an_index_never_leads_out_of_its_folder(name, tmp_path):
    folder = save("llama-untied", tmp_path, sharded=True)
    index = json.loads((folder / INDEX).read_text())
    edit_json(folder / INDEX, weight_map={**index["weight_map"], "lm_head.weight": name})
    assert "names a shard outside its folder" in refused(folder)


def test_an_index_that_does_not_fit_its_shards(tmp_path):
    folder = save("llama-untied", tmp_path, sharded=True)
    index = json.loads((folder / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    edit_json(folder / INDEX, weight_map={**index["weight_map"], "lm_head.weight": "gone.safetensors"})
    assert "names a shard that is missing: gone.safetensors" in refused(folder)
    wrong = next(name for name in shards if name != index["weight_map"]["lm_head.weight"])
    edit_json(folder / INDEX, weight_map={**index["weight_map"], "lm_head.weight": wrong})
    assert "which does not hold it" in refused(folder)
    edit_json(folder / INDEX, weight_map={})
    assert "maps no tensor" in refused(folder)
    held = load_file(folder / wrong)
    save_file({**held, "lm_head.weight": torch.ones(ROWS, 16)}, folder / wrong, metadata={"format": "pt"})
    edit_json(folder / INDEX, weight_map=index["weight_map"])
    assert "in two shards" in refused(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_are_named(value, tmp_path):
    folder = save("llama-bf16", tmp_path)

    def poison(held):
        held["lm_head.weight"][[5, 299]] = value

    rewrite(folder, poison)
    source = open_source(folder)
    with pytest.raises(RequestError, match=r"lm_head.weight holds numbers .* in 2 of 300 rows \(5, 299\)"):
        check_finite(source.table("output"), source.tables["output"].name)
    check_finite(source.table("input"), "the input table")


def test_a_folder_whose_replacement_was_cut_is_whole_again(tmp_path):
    save("llama-tied", tmp_path / "model")
    stem = tmp_path / ".model.tokenadapt-99999999-0123abcd"
    (tmp_path / "model").rename(stem)
    stem.with_name(stem.name + ".lock").write_text("exchange")
    assert open_source(tmp_path / "model").rows == ROWS
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
