"""tokenadapt verify: whether a folder is what it says it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tokenadapt.checkpoint.verify import VerifyReport
    from tokenadapt.cli.session import Session

COLOURS = {"pass": "green", "warning": "yellow", "error": "red", "skipped": "bright_black"}


@click.command()
@click.argument("folder")
@click.option(
    "--level",
    type=click.Choice(["tables", "files", "full", "auto"]),
    default="auto",
    show_default=True,
    help="How deep: the tables; every file; loaded and run; or as deep as memory allows.",
)
@click.option("--source", metavar="MODEL", help="The source model, a folder or Hub id, to compare with.")
@click.option("--strict", is_flag=True, help="Warnings are errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model.")
@click.pass_obj
def verify(
    session: Session, folder: str, level: str, source: str | None, strict: bool, as_json: bool, trust_remote_code: bool
) -> int:
    """Check the checkpoint FOLDER against its manifest, its plan, and, with --source, the source model.

    Exit code 0: no errors; 1: errors.
    """
    from pathlib import Path
    from typing import Any, cast

    from tokenadapt.checkpoint.verify import verify as run
    from tokenadapt.locate import locate

    report = run(
        Path(folder),
        level=cast(Any, level),
        source=locate(source, "model") if source else None,
        strict=strict,
        trust_remote_code=trust_remote_code,
        progress=session.progress(),
    )
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        show(report)
    return 0 if report.ok else 1


def show(report: VerifyReport) -> None:
    """The report as a table, and one closing line."""
    width = max(len(check.name) for check in report.checks)
    for check in report.checks:
        verdict = click.style(f"{check.verdict:8}", fg=COLOURS[check.verdict])
        click.echo(f"{verdict} {check.name:{width}}  {'; '.join(filter(None, (check.figure, check.message)))}")
    click.echo(f"passed {report.summary}" if report.ok else f"failed {report.summary}")
