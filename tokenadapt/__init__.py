"""tokenadapt: make a language model's tokenizer replaceable."""

__version__ = "0.1.0"
