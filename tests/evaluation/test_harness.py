"""The same bits per byte as lm-evaluation-harness on the same documents, with its windows."""

from __future__ import annotations

import json

import pytest

from tests.evaluation.conftest import Text
from tests.tiny import LINES
from tokenadapt.evaluation import EvalOptions, ScoreOptions, evaluate

TASK = """
task: tokenadapt_local
dataset_path: json
dataset_kwargs:
  data_files:
    test: {path}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
should_decontaminate: false
process_results: !function rolling.process_results
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
"""
# What the harness's own wikitext task does.
ROLLING = """
import re

def process_results(doc, results):
    (likelihood,) = results
    words, size = len(re.split(r"\\s+", doc["text"])), len(doc["text"].encode("utf-8"))
    return {
        "word_perplexity": (likelihood, words),
        "byte_perplexity": (likelihood, size),
        "bits_per_byte": (likelihood, size),
    }
"""
DOCUMENTS = [*LINES, " ".join(LINES) * 3, "x"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["checkpoint", "other"])
def test_disjoint_windows_give_the_harness_s_figure(family, request, tmp_path):
    pytest.importorskip("lm_eval")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = request.getfixturevalue(family)
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    (tmp_path / "tokenadapt_local.yaml").write_text(TASK.format(path=tmp_path / "texts.jsonl"))
    (tmp_path / "rolling.py").write_text(ROLLING)
    model = HFLM(pretrained=str(folder), device="cpu", dtype="float32", max_length=64, batch_size=4)
    found = simple_evaluate(
        model, tasks=["tokenadapt_local"], task_manager=TaskManager(include_path=str(tmp_path)), bootstrap_iters=0
    )
    theirs = found["results"]["tokenadapt_local"]["bits_per_byte,none"]
    scoring = ScoreOptions(windows="disjoint", context=64, bos="always")
    ours = evaluate([str(folder)], [Text(text) for text in DOCUMENTS], EvalOptions(scoring)).rows()[0]
    assert ours.measures.bits_per_byte == pytest.approx(theirs, abs=1e-3)
