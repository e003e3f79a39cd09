"""`README.md` of the result: what it is, how its rows were made, how to load it, and what engines must be told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tokenadapt.checkpoint.manifest import Manifest, without_folders

FILE: Final = "README.md"
_REASONS: Final = {
    "copied": "copied: same bytes as a token of the source",
    "special": "copied: same role as a special token of the source",
    "mapped": "copied: named by hand",
    "adjusted": "copied with a recorded shift",
    "missing": "made by the method",
    "unused": "unused: no text reaches these ids",
}
_NO_MATTER: Final = ("overwrite", "verify", "strict", "copy", "trust_remote_code")  # they change no row
_TENSOR_PARALLEL: Final = (2, 4, 8, 16)
_TOKENADAPT: Final = """@article{sharthak2025tokenadapt,
  title  = {Achieving Tokenizer Flexibility in Language Models through Heuristic Adaptation and Supertoken Learning},
  author = {Sharthak, Shaurya and Pahalwan, Vinayak and Kamath, Adithya and Shirawalmath, Adarsh},
  year   = {2025},
  eprint = {2505.09738},
  archivePrefix = {arXiv}
}"""


@dataclass(frozen=True)
class CardFacts:
    """What the card says beyond the manifest."""

    kind: str = "causal"  # causal, masked, seq2seq
    citations: Sequence[str] = field(default_factory=tuple)  # of the methods used, as their registry has them
    source_license: Mapping[str, str] = field(default_factory=dict)  # license keys of the source's own card
    unused: Sequence[int] = field(default_factory=tuple)  # ids that no text reaches
    pre_tokenizer: str = ""  # hash that GGUF converters know a pre-tokeniser by


def write_card(folder: Path, manifest: Manifest, facts: CardFacts) -> None:
    """Write the model card."""
    (folder / FILE).write_text(render_card(manifest, facts), encoding="utf-8", newline="\n")


def render_card(manifest: Manifest, facts: CardFacts) -> str:
    """The card as text."""
    parts = (
        _front_matter(manifest, facts),
        _summary(manifest),
        _overlap(manifest),
        _method(manifest),
        *([calibration_section(manifest)] if manifest.calibrations else []),
        _loading(manifest, facts),
        _serving(manifest, facts),
        _citation(facts),
    )
    return "\n".join(parts)


def source_license(folder: Path) -> dict[str, str]:
    """The license keys of a source's card; {} where it has none."""
    import yaml

    try:
        text = (folder / FILE).read_text(encoding="utf-8")
        match = re.match(r"---\n(.*?)\n---\s", text, re.DOTALL)
        front = yaml.safe_load(match.group(1)) if match else {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    keys = ("license", "license_name", "license_link")
    return {key: str(front[key]) for key in keys if isinstance(front, dict) and isinstance(front.get(key), str)}


def pre_tokenizer_hash(encode: Any) -> str:
    """The hash by which llama.cpp's converter knows a pre-tokeniser: of a fixed text's ids (get_vocab_base_pre).

    `encode` maps a text to ids as users get them, special tokens added.
    """
    import hashlib

    return hashlib.sha256(str(list(encode(_GGUF_TEXT))).encode()).hexdigest()


# The text of llama.cpp's convert_hf_to_gguf_update.py, so that the hash can be found in its list.
_GGUF_TEXT: Final = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) "
    "✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 "
    "?我想在apple工作1314151天～ ------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? "
    "I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL"
)


def _front_matter(manifest: Manifest, facts: CardFacts) -> str:
    import yaml

    task = {"causal": "text-generation", "masked": "fill-mask", "seq2seq": "text2text-generation"}[facts.kind]
    front: dict[str, Any] = dict(facts.source_license)
    front["library_name"] = "transformers"
    front["pipeline_tag"] = task
    if re.fullmatch(r"[\w.-]+/[\w.-]+", manifest.source.spec):
        front["base_model"] = manifest.source.spec
    front["tags"] = ["tokenadapt", "tokenizer-transplant"]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n"


def _summary(manifest: Manifest) -> str:
    rows = f"{manifest.rows:,} rows"
    before = f", {manifest.source.rows:,} before" if manifest.source.rows else ""
    tie = "one table in both roles" if manifest.tied else "separate input and output tables"
    return (
        f"# {manifest.source.spec} with the tokenizer of {manifest.target.spec}\n\n"
        f"The model `{manifest.source.spec}`, given the tokenizer `{manifest.target.spec}` by "
        f"[tokenadapt](https://pypi.org/project/tokenadapt/) {manifest.versions.get('tokenadapt', '')}. "
        f"Its vocabulary tables are new ({rows}{before}; {tie}); every other tensor has the source's bytes. "
        f"No step of training was made unless noted below.{_verified(manifest)}\n"
    )


def _verified(manifest: Manifest) -> str:
    if not manifest.verify:
        return ""
    checks = manifest.verify.get("checks", ())
    warnings = sum(check.get("verdict") == "warning" for check in checks)
    told = f", {warnings} of which warn (see `transplant.json`)" if warnings else ""
    return f" The result passed {len(checks)} checks at level `{manifest.verify.get('level')}`{told}."


def _overlap(manifest: Manifest) -> str:
    total = max(1, manifest.rows)
    rows = [
        (_REASONS.get(reason, reason), f"{count:,}", f"{100 * count / total:.1f}%")
        for reason, count in manifest.counts.items()
        if count
    ]
    by_bytes = sum(manifest.counts.get(reason, 0) for reason in ("copied", "special", "mapped", "adjusted"))
    note = f"Compared by bytes, {by_bytes:,} tokens have a row in the source; by spelling it would be "
    return (
        "## Overlap\n\n"
        + _table(("Rows of the new vocabulary", "count", "share"), rows)
        + f"\n{note}{manifest.spelled_alike:,}.\n"
    )


def _method(manifest: Manifest) -> str:
    methods, told = without_folders(manifest.methods), without_folders(manifest.options)
    shown: list[tuple[str, Any]] = [("method, " + role, method) for role, method in methods.items()]
    options = {key: value for key, value in told.items() if key not in _NO_MATTER}
    shown += [(key, value) for key, value in options.items() if _says_something(value)]
    shown.append(("seed", manifest.seed))
    lines = [f"- {change}" for change in manifest.changes]
    changes = "\n### Ids that changed\n\n" + "\n".join(lines) + "\n" if lines else ""
    chat = f"\nChat: {manifest.chat}.\n" if manifest.chat else ""
    return "## Method\n\n" + _table(("option", "value"), shown) + _factors(manifest) + chat + changes


def _factors(manifest: Manifest) -> str:
    """What `transplant.factors` holds, and how far it is from the tables."""
    if not manifest.factors:
        return ""
    rows = [
        (role, one["rank"], f"{one['lost_new']:.1%}", f"{one['lost_copied']:.1%}")
        for role, one in manifest.factors.items()
    ]
    columns = ("table", "rank k", "lost in new rows", "lost in copied rows")
    return (
        "\n`transplant.factors` (safetensors) holds the tables as products too: `ROLE.F` (rows, k) times `ROLE.P` "
        "(k, width), float32. The model does not read it. Lost is the share of squared length that F P lacks: the "
        f"model's own tables hold copied rows whole.\n\n{_table(columns, rows)}"
    )


def calibration_section(manifest: Manifest) -> str:
    """What was trained after the transplant, on what, how long, and what it brought; empty where nothing was."""
    if not manifest.calibrations:
        return ""
    parts = ["## Calibration\n", "After the transplant, parameters were trained to say what the source model says.\n"]
    for number, run in enumerate(manifest.calibrations, 1):
        last = run["curve"][-1]
        rows = [
            ("trained", f"{run['train']} ({run['parameters']:,} numbers)"),
            ("objective", run["objective"]),
            ("data", f"{run['data']}; {run['coverage']['tokens']:,} tokens"),
            ("new tokens that the data hold", f"{run['coverage']['seen']:,} of {run['coverage']['new']:,}"),
            ("read", f"{last['tokens']:,} tokens in {last['step']:,} steps, {last['seconds'] / 60:.1f} minutes"),
            ("held-out bits per byte, source model", f"{run['source']:.4f}"),
            ("before", f"{run['before']:.4f} ({run['before'] - run['source']:+.4f})"),
            ("after", f"{run['after']:.4f} ({run['after'] - run['source']:+.4f})"),
        ]
        title = f"\n### Run {number}\n\n" if len(manifest.calibrations) > 1 else "\n"
        parts.append(title + _table(("", "value"), rows))
    files = "`transplant.plan` and `transplant.factors` describe" if manifest.factors else "`transplant.plan` describes"
    parts.append(f"\n{files} the rows before: `explain` and `apply-plan` speak of those.\n")
    return "".join(parts)


def _says_something(value: Any) -> bool:
    """Whether an option is anything but empty, off, or a table of such."""
    return any(map(_says_something, value.values())) if isinstance(value, Mapping) else bool(value)


def _loading(manifest: Manifest, facts: CardFacts) -> str:
    names = {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM", "seq2seq": "AutoModelForSeq2SeqLM"}
    cls = names[facts.kind]
    return (
        "## How to load\n\n```python\n"
        f"from transformers import AutoTokenizer, {cls}\n\n"
        'folder = "."  # this folder, or its name on the Hub\n'
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        f"model = {cls}.from_pretrained(folder)\n```\n\n"
        "`transplant.json` records inputs, options and hashes; `tokenadapt verify .` checks the folder against it, "
        "`tokenadapt explain . TOKEN` shows how a row was made, and "
        "`tokenadapt apply-plan transplant.plan MODEL OUTPUT` gives another checkpoint of the same vocabulary the same "
        "rows.\n"
    )


def _serving(manifest: Manifest, facts: CardFacts) -> str:
    fits = [str(ways) for ways in _TENSOR_PARALLEL if manifest.rows % ways == 0]
    shards = f"tensor-parallel over {', '.join(fits)}" if fits else "no tensor-parallel split into equal parts"
    lines = [
        f"- **Rows**: {manifest.rows:,}, which allows {shards}. Engines that want another multiple (64, 128) need "
        "`--pad-to-multiple` at the transplant.",
        "- **GGUF**: the converter of llama.cpp knows a pre-tokeniser by a hash"
        + (f", here `{facts.pre_tokenizer}`" if facts.pre_tokenizer else "")
        + "; where that hash is not in its list it refuses, and the list must be extended.",
        "- **Tokenizer**: `tokenizer_class` is `PreTrainedTokenizerFast`, so that `tokenizer.json` is read as it is; "
        "another class may rebuild the pre-tokeniser and give other ids.",
    ]
    if facts.unused:
        lines.append(
            f"- **Unused ids**: {_ranges(facts.unused)}. Their rows are made to lose; as a second guard pass them as "
            "`suppress_tokens` to `generate` (or as a logit bias of -100 to a server)."
        )
    return "## What serving engines need\n\n" + "\n".join(lines) + "\n"


def _citation(facts: CardFacts) -> str:
    others = [citation for citation in dict.fromkeys(facts.citations) if "2505.09738" not in citation and citation]
    methods = "\n".join(f"- {citation}" for citation in others)
    return (
        "## Citation\n\n" + (f"Methods used:\n\n{methods}\n\n" if methods else "") + f"```bibtex\n{_TOKENADAPT}\n```\n"
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    def line(cells: Iterable[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join((line(columns), line("---" for _ in columns), *(line(row) for row in rows))) + "\n"


def _ranges(ids: Sequence[int], shown: int = 8) -> str:
    """Ids as ranges, the first few of them."""
    runs: list[list[int]] = []
    for number in sorted(ids):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:shown]]
    more = f" and {len(runs) - shown} more ranges" if len(runs) > shown else ""
    return ", ".join(parts) + more
