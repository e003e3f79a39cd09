"""`tokenadapt eval-ppl`: bits per byte of models on the same text, whatever their tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokenadapt.cli.session import Session, table

if TYPE_CHECKING:
    from tokenadapt.documents import CorpusOptions
    from tokenadapt.evaluation.options import EvalOptions

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("eval-ppl")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("-d", "--data", multiple=True, required=True, help="File, folder, glob, - or hf:DATASET; repeatable.")
@click.option("--column", default="text", show_default=True, help="Column of jsonl and parquet that holds the text.")
@click.option("--label-column", help="Column that names the subset; else folders and file names do.")
@click.option("--split", default="train", show_default=True, help="Split of a Hub dataset.")
@click.option(
    "--documents",
    type=click.Choice(["file", "line", "paragraph"]),
    default="file",
    show_default=True,
    help="What one document of a text file is.",
)
@click.option("--document-bytes", type=int, default=1 << 20, show_default=True, help="Longest document of a text file.")
@click.option("--limit-bytes", type=int, help="The first bytes of each subset only.")
@click.option("--sample-bytes", type=int, help="A seeded random sample of about so many bytes.")
@click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail", show_default=True, help="Bad input.")
@click.option("--context", type=int, help="Tokens that a model reads at most.  [default: its positions, at most 1024]")
@click.option("--context-bytes", type=int, help="The same in bytes of text, so that a dense tokenizer sees no more.")
@click.option("--stride", type=int, help="How much of each later window is scored.  [default: half the context]")
@click.option(
    "--windows",
    type=click.Choice(["overlap", "disjoint"]),
    default="overlap",
    show_default=True,
    help="disjoint: the rule of lm-evaluation-harness.",
)
@click.option(
    "--bos",
    type=click.Choice(["as-trained", "always", "never"]),
    default="as-trained",
    show_default=True,
    help="Begin token before the text: as the tokenizer puts it, always, never.",
)
@click.option("--masked", is_flag=True, help="Masked models, by pseudo-log-likelihood.")
@click.option("--batch-tokens", type=int, help="Tokens read at a time.  [default: 1024 on CPU, else 32768]")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="auto: float32 on CPU, the checkpoint's own elsewhere.",
)
@click.option("--device-map", help="Spread a model over devices, for example auto.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with a model.")
@click.option("--reference", help="Tokenizer whose tokens one perplexity is given per.  [default: the first model's]")
@click.option("--bootstrap", type=int, default=1000, show_default=True, help="Resamples for intervals; 0: none.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of samples and resamples.")
@click.option("--where", is_flag=True, help="Show the loss by kind of byte and by place too.")
@click.option("--worst", type=int, default=0, metavar="N", help="Show the N tokens that cost most.")
@click.option("--per-token", type=_FILE, help="Write every token with its bits to this parquet file.")
@click.option("--baseline", type=_FILE, help="A saved run, whose first model the others are compared with.")
@click.option("--save", type=_FILE, help="Keep the run, for --baseline.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", is_flag=True, help="Print Markdown tables.")
@click.pass_context
def eval_ppl(ctx: click.Context, /, models: tuple[str, ...], data: tuple[str, ...], **given: Any) -> None:
    """Measure MODELs on the same text in bits per byte, which compares across tokenizers."""
    from tokenadapt.corpus import read_corpus
    from tokenadapt.errors import RequestError
    from tokenadapt.evaluation import evaluate
    from tokenadapt.evaluation.ranks import joined
    from tokenadapt.evaluation.saved import read_saved, save
    from tokenadapt.progress import SILENT

    session: Session = ctx.obj
    reading, options = _reading(given), _options(given)
    for name in ("save", "per_token"):
        if given[name] and not given[name].absolute().parent.is_dir():
            raise RequestError(f"There is no folder {given[name].parent} for {given[name].name}.", "Make it first.")
    baseline = read_saved(given["baseline"]) if given["baseline"] else None
    with joined() as ranks:
        if ranks.size > 1 and "-" in data:
            raise RequestError("Standard input cannot be shared by several processes.", "Write it to a file first.")
        progress = session.progress() if ranks.first else SILENT
        documents = read_corpus(data, reading, progress=progress)
        result = evaluate(models, documents, options, baseline=baseline, ranks=ranks, progress=progress)
        if ranks.first:
            if given["save"]:
                save(result, given["save"])
            _show(result, given)
    ctx.exit(result.interrupted)


def _reading(given: dict[str, Any]) -> CorpusOptions:
    from tokenadapt.documents import CorpusOptions

    same = ("column", "label_column", "split", "documents", "limit_bytes", "sample_bytes", "on_error", "seed")
    return CorpusOptions(block_bytes=given["document_bytes"], **{name: given[name] for name in same})


def _options(given: dict[str, Any]) -> EvalOptions:
    from tokenadapt.evaluation.options import EvalOptions, ScoreOptions

    scoring = ("windows", "context", "context_bytes", "stride", "bos", "batch_tokens")
    score = ScoreOptions("masked" if given["masked"] else "causal", **{name: given[name] for name in scoring})
    same = (
        "device", "dtype", "device_map", "trust_remote_code", "reference", "bootstrap", "seed", "worst", "per_token",
    )  # fmt: skip
    return EvalOptions(score, **{name: given[name] for name in same})


def _show(result: Any, given: dict[str, Any]) -> None:  # EvalResult, imported late
    import json

    from tokenadapt.evaluation.markdown import as_markdown, grids, notes
    from tokenadapt.evaluation.report import as_json

    if given["as_json"]:
        click.echo(json.dumps(as_json(result), indent=2, ensure_ascii=False))
    elif given["markdown"]:
        click.echo(as_markdown(result, where=given["where"]))
    else:
        for grid in grids(result, where=given["where"]):
            table(grid.title, grid.columns, grid.rows, right=range(grid.left, len(grid.columns)))
            click.echo()
        click.echo("\n".join(notes(result)))
