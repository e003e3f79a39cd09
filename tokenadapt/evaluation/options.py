"""How a text is to be scored, and how the scores are to be compared: frozen, checked at birth."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from tokenadapt.errors import RequestError

KINDS: Final = ("causal", "masked")
WINDOWS: Final = ("overlap", "disjoint")
BOS: Final = ("as-trained", "always", "never")
DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
DEFAULT_CONTEXT: Final = 1024  # tokens, where neither the user nor the model sets less


@dataclass(frozen=True)
class ScoreOptions:
    """What a score depends on, apart from the model and the text; batch sizes do not change it.

    `context` is in tokens (None: the model's positions, at most 1024), `context_bytes` in bytes of text instead, so
    that a denser tokenizer sees no more. `stride` is how much of each later window is scored, in the same unit (None:
    half of the context). `windows="disjoint"` is the rule of lm-evaluation-harness: every later window begins with
    the token before its first. `batch_tokens` and `head_bytes` are how much is held at a time (None: little on a CPU,
    where more is not faster, and much on an accelerator).
    """

    kind: str = "causal"
    windows: str = "overlap"
    context: int | None = None
    context_bytes: int | None = None
    stride: int | None = None
    bos: str = "as-trained"
    batch_tokens: int | None = None
    head_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("windows", WINDOWS), ("bos", BOS)):
            if getattr(self, name) not in allowed:
                raise RequestError(f"{name} is {getattr(self, name)!r}.", f"Use one of: {', '.join(allowed)}.")
        for name in ("context", "context_bytes", "stride", "batch_tokens", "head_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RequestError(f"{name} is {value}.", "Give a positive number.")
        if self.context is not None and self.context < 2:
            raise RequestError("A context of one token predicts nothing.", "Give --context 2 or more.")
        if self.stride is not None and self.windows == "disjoint":
            raise RequestError("Disjoint windows have no stride.", "Leave --stride out, or use --windows overlap.")
        if self.context_bytes is not None and (self.windows == "disjoint" or self.context is not None):
            raise RequestError(
                "--context-bytes goes neither with --context nor with disjoint windows, which are in tokens.",
                "Leave one of them out.",
            )
        limit = self.context_bytes or self.context
        if self.stride is not None and limit is not None and self.stride > limit:
            raise RequestError(
                f"A stride of {self.stride} is longer than the context of {limit}, so that text would be left out.",
                "Give a stride of at most the context.",
            )

    def rule(self) -> dict[str, object]:
        """The options that change a score: what a baseline must share."""
        parts = asdict(self)
        return {name: parts[name] for name in ("kind", "windows", "context", "context_bytes", "stride", "bos")}


@dataclass(frozen=True)
class EvalOptions:
    """A whole comparison: how models are loaded, scored and set beside each other."""

    score: ScoreOptions = field(default_factory=ScoreOptions)
    device: str = "auto"
    dtype: str = "auto"  # float32 on CPU, the checkpoint's own on an accelerator
    device_map: str | None = None
    trust_remote_code: bool = False
    reference: str | None = None  # tokenizer whose tokens `reference_perplexity` counts; None: the first model's
    bootstrap: int = 1000
    seed: int = 0
    worst: int = 0
    per_token: Path | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise RequestError(f"dtype is {self.dtype!r}.", f"Use one of: {', '.join(DTYPES)}.")
        if self.bootstrap < 0 or self.worst < 0:
            raise RequestError("A negative number of samples or tokens.", "Give 0 or more.")
