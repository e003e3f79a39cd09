from __future__ import annotations

import random
from pathlib import Path

import pytest

COMMON = "the of and to in is that it was for on are with as his they be at one have this from or by hot but"
WORDS = COMMON.split()


def story(lines: int = 300, seed: int = 0) -> str:
    """Text with phrases that repeat, several scripts, code, digits and odd white space."""
    draw = random.Random(seed)
    out = []
    for number in range(lines):
        phrase = "in the middle of the night " if number % 3 == 0 else "at the end of the day, "
        out.append(phrase + " ".join(draw.choice(WORDS) for _ in range(9)) + f" in {1900 + number % 60}.\n")
        if number % 10 == 0:
            out.append(f"    def f_{number}(x):\n\treturn x + {number}  # note: the sum\r\n")
            out.append("Die Straße führt über den Fluß. नमस्ते दुनिया 👩‍👩‍👧 你好世界\n\n")
    return "".join(out)


@pytest.fixture(scope="session")
def story_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "story.txt"
    path.write_bytes(story().encode())
    return path
