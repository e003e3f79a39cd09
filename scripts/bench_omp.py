"""Orthogonal matching pursuit: the textbook loop beside ours, same targets, same atoms.

    python scripts/bench_omp.py --anchors 16384 --width 1024 --k 64

The textbook loop projects what is left on every atom and fits all chosen atoms anew at each step. Our time holds the
Gram matrix, which is made once however many targets there are: a real vocabulary has 100,000. CPU time is what tells
on a busy machine; run with OMP_NUM_THREADS=1 to compare it.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from tokenadapt.methods.pursuit import pursue


def textbook(atoms: np.ndarray, target: np.ndarray, k: int) -> tuple[list[int], np.ndarray]:
    chosen: list[int] = []
    rest = target
    weight = np.zeros(0, np.float32)
    for _ in range(k):
        score = np.abs(atoms @ rest)
        score[chosen] = -1
        chosen.append(int(score.argmax()))
        weight = np.linalg.lstsq(atoms[chosen].T, target, rcond=None)[0]
        rest = target - atoms[chosen].T @ weight
    return chosen, weight


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, default=16384)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--targets", type=int, default=1024)
    parser.add_argument("--plain", type=int, default=8, help="targets that the textbook loop does")
    parser.add_argument("--residuals", action="store_true", help="without a Gram matrix, as for very many anchors")
    parser.add_argument("--json", help="write the figures to this file")
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(given.anchors, given.width, generator=generator), dim=1)
    targets = torch.randn(given.targets, given.width, generator=generator)

    begin, cpu = time.perf_counter(), time.process_time()
    found = pursue(atoms, targets, given.k, use_gram=not given.residuals)
    ours, ours_cpu = (
        (now - then) / given.targets for now, then in ((time.perf_counter(), begin), (time.process_time(), cpu))
    )

    begin, cpu = time.perf_counter(), time.process_time()
    rows = [textbook(atoms.numpy(), targets[j].numpy(), given.k) for j in range(given.plain)]
    plain, plain_cpu = (
        (now - then) / given.plain for now, then in ((time.perf_counter(), begin), (time.process_time(), cpu))
    )

    same, worst = 0, 0.0
    for j, (chosen, weight) in enumerate(rows):
        fitted = atoms[chosen].T @ torch.from_numpy(np.asarray(weight))
        mine = atoms[found.atom[j]].T @ found.weight[j]
        same += found.atom[j].tolist() == chosen
        worst = max(worst, float((fitted - mine).abs().max() / targets[j].abs().max()))
    figures = {
        "anchors": given.anchors, "width": given.width, "k": given.k, "targets": given.targets,
        "threads": torch.get_num_threads(), "ms_per_target": 1000 * ours, "plain_ms_per_target": 1000 * plain,
        "cpu_ms_per_target": 1000 * ours_cpu, "plain_cpu_ms_per_target": 1000 * plain_cpu,
        "times_faster": plain / ours, "times_less_cpu": plain_cpu / ours_cpu,
        "same_atoms": f"{same} of {given.plain}", "worst_difference": worst,
    }  # fmt: skip
    for name, value in figures.items():
        print(f"{name:20} {value:.4g}" if isinstance(value, float) else f"{name:20} {value}")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
