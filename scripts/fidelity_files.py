"""What bench_fidelity.py wants beside models, tokenizers and a corpus, made from texts and a static table of vectors.

    python scripts/fidelity_files.py --texts DIR --vectors wordllama --out $TOKENADAPT_BENCH

writes words.vec, the texts' words by frequency with their vectors (for wechsel and ofa), parallel.tsv, every line
twice (for trans: a tokenizer may change where the language does not), and supertoken, a tokenizer whose tokens may
hold several words (two-stage, 32,000 tokens, with the special tokens of --like). Texts may be packed: what --corpus
takes.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import regex
from fidelity_methods import bench_path

from tokenadapt.corpus import read_corpus
from tokenadapt.spaces.static import StaticEncoder
from tokenadapt.training.options import TrainingOptions
from tokenadapt.training.train import train_tokenizer

WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*|\p{N}+|[^\s\p{L}\p{N}]")
BATCH = 8192
SUPERTOKENS = 32_000


def lines_of(texts: Sequence[str]) -> Iterator[str]:
    for document in read_corpus(texts):
        yield from filter(None, (line.strip().replace("\t", " ") for line in document.text.splitlines()))


def write_words(texts: Sequence[str], vectors: str, most: int, path: Path) -> int:
    counts: Counter[str] = Counter()
    for line in lines_of(texts):
        counts.update(WORD.findall(line))
    words = sorted(counts, key=lambda word: (-counts[word], word))[:most]
    encoder = StaticEncoder(Path(bench_path(vectors)))
    with path.open("w", encoding="utf-8") as file:
        for first in range(0, len(words), BATCH):
            batch = words[first : first + BATCH]
            for word, vector in zip(batch, encoder.encode_texts(batch), strict=True):
                if vector.any():
                    file.write(f"{word} {' '.join(f'{number:.4f}' for number in vector)}\n")
    return len(words)


def write_parallel(texts: Sequence[str], most: int, path: Path) -> int:
    lines = list(lines_of(texts))
    lines = lines[:: max(1, -(-len(lines) // most))]
    path.write_text("".join(f"{line}\t{line}\n" for line in lines), encoding="utf-8")
    return len(lines)


def train_supertokens(texts: Sequence[str], like: str, path: Path) -> int:
    asked = TrainingOptions(tuple(texts), str(path), SUPERTOKENS, like=like, supertokens="two-stage", overwrite=True)
    train_tokenizer(asked)
    return SUPERTOKENS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="+", required=True)
    parser.add_argument("--vectors", default="wordllama", help="a folder with one table and its tokenizer")
    parser.add_argument("--like", default="smollm2", help="whose special tokens the supertoken tokenizer has")
    parser.add_argument("--words", type=int, default=50_000)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    texts = [bench_path(text) for text in arguments.texts]
    print(f"{write_words(texts, arguments.vectors, arguments.words, arguments.out / 'words.vec'):,} words")
    print(f"{write_parallel(texts, arguments.lines, arguments.out / 'parallel.tsv'):,} lines")
    tokens = train_supertokens(texts, bench_path(arguments.like), arguments.out / "supertoken")
    print(f"{tokens:,} tokens of one word and more")


if __name__ == "__main__":
    main()
