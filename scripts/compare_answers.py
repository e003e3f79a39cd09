"""Ask a source model and its transplant the same questions, both in the source's chat template, answers side by side.

python scripts/compare_answers.py SOURCE RESULT [--question TEXT ...]
"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTIONS = (
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain in two sentences why the sky is blue.",
    "Write a Python function that adds two numbers.",
)


@torch.inference_mode()
def answers(folder: str, template: str, questions: list[str], tokens: int) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for question in questions:
        chat = [{"role": "user", "content": question}]
        read = tokenizer.apply_chat_template(
            chat, chat_template=template, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        written = model.generate(**read, max_new_tokens=tokens, do_sample=False)[0, read["input_ids"].shape[1] :]
        found.append(tokenizer.decode(written, skip_special_tokens=True).strip())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("result")
    parser.add_argument("--question", action="append", default=[])
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    questions = args.question or list(QUESTIONS)
    template = AutoTokenizer.from_pretrained(args.source).chat_template
    drawn = Table("question", "source", "result", show_lines=True)
    both = [answers(folder, template, questions, args.tokens) for folder in (args.source, args.result)]
    for row in zip(questions, *both, strict=True):
        drawn.add_row(*row)
    Console(width=150, markup=False).print(drawn)


if __name__ == "__main__":
    main()
