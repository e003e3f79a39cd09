"""tiktoken's rank files: lines of base64 bytes and a rank, without a pattern or special tokens."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from tokenadapt.vocab.letters import to_letters

# cl100k's pattern, which Llama 3 also uses; the files do not name their own
PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_tiktoken(path: Path) -> Tokenizer | None:
    """The byte-level BPE that a rank file describes; None where the file is something else.

    Every pair that joins to a token is a merge, in rank order; a pre-token that is a token is taken whole, as
    tiktoken does. transformers' own converter does the same through the package tiktoken, which is not needed here.
    """
    ranks = _ranks(path)
    if not ranks:
        return None
    spelled = {token: to_letters(token) for token in ranks}
    made = Tokenizer(
        models.BPE({spelled[token]: rank for token, rank in ranks.items()}, _merges(ranks, spelled), ignore_merges=True)
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return made


def _merges(ranks: dict[bytes, int], spelled: dict[bytes, str]) -> list[tuple[str, str]]:
    found = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ranks and right in ranks:
                found.append((rank, ranks[left], ranks[right], left, right))
    found.sort()
    return [(spelled[left], spelled[right]) for *_, left, right in found]


def _ranks(path: Path) -> dict[bytes, int]:
    ranks = {}
    try:
        for line in path.read_bytes().splitlines():
            if line:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (ValueError, binascii.Error):
        return {}
    return ranks
