"""What belongs to the model comes along; what belongs to its old tokenizer does not."""

from __future__ import annotations

from tokenadapt.checkpoint.companions import copy_companions


def test_licences_processors_and_named_code_come_along(tmp_path):
    folder, staging = tmp_path / "in", tmp_path / "out"
    for made in (folder, staging):
        made.mkdir()
    names = ["LICENSE.txt", "NOTICE", "README.md", "tokenizer.json", "special_tokens_map.json", "vocab.json"]
    for name in [*names, "preprocessor_config.json", "modeling_odd.py", "layers.py", "tokenization_odd.py"]:
        (folder / name).write_text(f"source's {name}")
    (staging / "NOTICE").write_text("ours")
    plain = copy_companions(folder, {"auto_map": {"AutoModelForCausalLM": "other/repo--modeling.Odd"}}, staging)
    assert plain == ("LICENSE.txt", "preprocessor_config.json")
    coded = copy_companions(folder, {"auto_map": {"AutoModelForCausalLM": "modeling_odd.Odd"}}, staging)
    assert coded == ("layers.py", "modeling_odd.py")
    assert (staging / "NOTICE").read_text() == "ours"
    assert (staging / "layers.py").read_text() == "source's layers.py"
    assert copy_companions(folder, {}, staging) == ()
