"""Where a transplanted or calibrated model loses against its source: excess by kind of shared span.

    python scripts/bench_excess.py FOLDER --source MODEL [--self-generated 1500000] [-d TEXTS] [--bytes 32768]

A span is the text between two neighbouring places where both tokenizers have a token's end. Its excess is what the
student needs in bits more than the source; kinds say how the span is cut on both sides, and what stood before it.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

KINDS = (
    "the same token, after one",
    "the same token, after other spans",
    "one new token for several old",
    "one new token for one old",
    "several tokens for one old",
    "several for several",
)


def kind(ours: int, theirs: int, new: bool, plain_before: bool) -> str:
    """What a span is called."""
    if ours == 1 and theirs == 1 and not new:
        return KINDS[0] if plain_before else KINDS[1]
    if ours == 1:
        return KINDS[2] if theirs > 1 else KINDS[3]
    return KINDS[4] if theirs == 1 else KINDS[5]


def spans(bench: Any) -> Iterator[tuple[str, float, float]]:
    """Each span of the held-out text: its kind, and the bits that student and source need for it."""
    import torch

    from tokenadapt.calibration.examples import Text, make_examples
    from tokenadapt.calibration.objectives.bytes_ import span_sums

    texts = [Text(text, f"text {number}") for number, text in enumerate(bench.data.held_out)]
    lesson = with_layers_of_source(bench)
    with torch.no_grad():
        for batch in lesson.batches(make_examples(texts, *bench.readers)):
            view, count = lesson.view(batch), len(batch.student.shared)
            needed = [
                (-span_sums(side, found) / math.log(2)).tolist()
                for side, found in ((batch.student, view.log_probs), (batch.teacher, view.teacher_log_probs))
            ]
            sizes = [torch.bincount(side.span, minlength=count).tolist() for side in (batch.student, batch.teacher)]
            new = torch.zeros(count, dtype=torch.bool)
            new[batch.student.span[lesson.is_new[batch.student.target]]] = True
            plain = True
            for place, whole in enumerate(batch.whole.tolist()):
                ours, theirs, fresh = sizes[0][place], sizes[1][place], bool(new[place])
                if whole:
                    yield kind(ours, theirs, fresh, plain), needed[0][place], needed[1][place]
                plain = ours == theirs == 1 and not fresh


def with_layers_of_source(bench: Any) -> Any:
    """The lesson with a teacher whose layers are the source's own: the folder's may have been trained too."""
    from tokenadapt.calibration.body import open_body
    from tokenadapt.calibration.speaker import Speaker

    body = open_body(bench.pair.source.folder, bench.dtype, bench.group.device)
    return replace(bench.lesson, teacher=Speaker(body, bench.people.teacher.tables()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--source", required=True)
    parser.add_argument("--self-generated", type=int)
    parser.add_argument("-d", "--data", action="append", default=[])
    parser.add_argument("--bytes", type=int, default=32_768, help="of held-out text")
    given = parser.parse_args()

    from tokenadapt.calibration.bench import set_up
    from tokenadapt.calibration.group import join
    from tokenadapt.calibration.options import CalibrationOptions
    from tokenadapt.calibration.pair import open_pair

    options = CalibrationOptions(
        given.folder,
        "nowhere",
        source=given.source,
        data=tuple(given.data),
        self_generated=given.self_generated,
        held_out_bytes=given.bytes,
        objective="bytes=1",
        batch_tokens=1024,
    )
    pair = open_pair(options)
    bench = set_up(pair, options, join(None))
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name, ours, theirs in spans(bench):
        found[name].append((ours, theirs))
    size = bench.held_out.bytes
    print("| span | spans | source, bits each | student, bits each | excess, bits per byte of all text |")
    print("| --- | --- | --- | --- | --- |")
    for name in KINDS:
        if bits := found[name]:
            ours, theirs = (sum(side) for side in zip(*bits, strict=True))
            cells = [f"{len(bits):,}", f"{theirs / len(bits):.2f}", f"{ours / len(bits):.2f}"]
            print(f"| {name} | {' | '.join(cells)} | {(ours - theirs) / size:+.4f} |")
    total = sum(ours - theirs for bits in found.values() for ours, theirs in bits)
    print(f"| all | {sum(map(len, found.values())):,} | | | {total / size:+.4f} |")


if __name__ == "__main__":
    main()
