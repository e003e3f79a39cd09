"""Before a result is called done, and any time later: what is wrong with a checkpoint folder.

Levels: `tables` streams the vocabulary tables and reads the small files; `files` hashes everything else too; `full`
loads the model with transformers and runs it; `auto` is full where the model fits in half of the free memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tokenadapt.checkpoint.verify.report import Check, Level, VerifyReport, judge, skipped
from tokenadapt.checkpoint.verify.subject import Subject, open_subject
from tokenadapt.errors import RequestError
from tokenadapt.progress import SILENT, Progress

__all__ = ["Check", "Level", "VerifyReport", "verify"]


def verify(
    folder: Path,
    *,
    level: Level | Literal["auto"] = "auto",
    source: Path | None = None,
    strict: bool = False,
    trust_remote_code: bool = False,
    progress: Progress = SILENT,
) -> VerifyReport:
    """Check a checkpoint folder by itself, by its manifest and plan, and against its `source` where that is given.

    `strict` makes warnings errors. The folder is only read. Raises RequestError where there is no such folder; what is
    wrong inside it stands in the report (`raise_errors` makes it an exception).
    """
    if not folder.is_dir():
        raise RequestError(f"There is no checkpoint folder {folder}.", "Name a folder that holds a checkpoint.")
    done: Level = "full" if level == "auto" else level
    try:
        subject = open_subject(folder, source, trust_remote_code=trust_remote_code)
    except RequestError as error:
        return VerifyReport(done, (judge("complete files", [error.message]),))
    if subject.misfit:
        return VerifyReport(done, (judge("source", [f"{source} is not this folder's source: {subject.misfit}"]),))
    checks = [judge("complete files", [], f"{len(subject.checkpoint.shards)} shards")]
    checks += _all_checks(subject, done, level == "auto", trust_remote_code, progress)
    if level == "auto" and any(check.name == "model" and check.verdict == "skipped" for check in checks):
        done = "files"
    report = VerifyReport(done, tuple(checks))
    return report.strictly() if strict else report


def _all_checks(
    subject: Subject, level: Level, automatic: bool, trust_remote_code: bool, progress: Progress
) -> Iterator[Check]:
    from tokenadapt.checkpoint.verify.files import file_checks, id_checks, loading_check
    from tokenadapt.checkpoint.verify.tables import table_checks

    yield from table_checks(subject, progress)
    ids = list(id_checks(subject))
    yield from ids
    readable = all(check.name != "tokenizer" for check in ids)
    if readable:
        from tokenadapt.checkpoint.verify.texts import text_checks

        yield from text_checks(subject)
    if level == "tables":
        return
    yield from file_checks(subject, progress)
    if readable:
        yield loading_check(subject)
    if level != "full":
        return
    from tokenadapt.checkpoint.verify.model import model_checks, why_not

    if reason := why_not(subject) if automatic else "":
        yield skipped("model", reason)
    elif readable:
        yield from model_checks(subject, trust_remote_code=trust_remote_code, progress=progress)
