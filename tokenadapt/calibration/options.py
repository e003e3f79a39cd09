"""What `tokenadapt calibrate` may be told: one frozen dataclass, checked at birth, to and from YAML."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from tokenadapt.calibration.objectives.terms import parse_terms
from tokenadapt.errors import RequestError

TRAIN: Final = ("new", "rows", "rows+norms", "lora", "rows+lora")
SCHEDULES: Final = ("cosine", "constant")
OPTIMIZERS: Final = ("rows", "adam")
DTYPES: Final = ("auto", "float32", "bfloat16")
BOS: Final = ("as-trained", "always", "never")
DEFAULT_OBJECTIVE: Final = "hidden=1,text=1"
# What changes where and how a run is watched, saved and stopped, but not what it computes until then.
FREE: Final = frozenset(
    {"output", "log", "overwrite", "resume", "minutes", "verify", "strict", "device", "save_every", "restart"}
)


@dataclass(frozen=True)
class CalibrationOptions:
    """Everything that a run depends on. Budgets: the first of `steps`, `tokens` and `minutes` that is used up."""

    folder: str
    output: str
    source: str | None = None
    # data
    data: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    held_out_bytes: int = 65_536
    column: str = "text"
    split: str = "train"
    on_error: str = "fail"
    sample_bytes: int | None = 64 << 20
    self_generated: int | None = None  # tokens that the source model writes
    temperature: float = 1.0
    prompts: str | None = None
    cover: int = 0  # snippets for each new token that the data hold less often
    context: int = 256
    bos: str = "as-trained"
    # what is trained, and towards what
    objective: str = DEFAULT_OBJECTIVE
    train: str = "rows"
    lora_rank: int = 16
    merge: bool = True
    closed_form: bool = True
    # the loop
    steps: int | None = None
    tokens: int | None = None
    minutes: float | None = None
    lr: float | None = None  # of the root mean square of a table's numbers; None: by the number of steps
    optimizer: str = "rows"
    schedule: str = "cosine"
    warmup: float = 0.05
    clip: float = 1.0
    step_tokens: int = 1024
    batch_tokens: int = 2048
    every: int = 50
    save_every: int | None = None
    patience: int = 0
    seed: int = 0
    device: str | None = None
    dtype: str = "auto"
    # the result
    log: str | None = None
    resume: bool = False
    restart: bool = False
    overwrite: bool = False
    verify: str = "auto"
    strict: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        """Raises RequestError for values that no run can have."""
        parse_terms(self.objective)
        choices = {"train": TRAIN, "schedule": SCHEDULES, "dtype": DTYPES, "bos": BOS, "optimizer": OPTIMIZERS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise RequestError(
                    f"--{name} {getattr(self, name)} is not known.", f"Say one of: {', '.join(allowed)}."
                )
        for name in ("tokens", "minutes", "self_generated", "save_every", "sample_bytes"):
            _check_positive(name, getattr(self, name))
        for name in ("held_out_bytes", "step_tokens", "batch_tokens", "every", "lora_rank", "lr", "clip"):
            _check_positive(name, getattr(self, name))
        if self.steps is not None and self.steps < 0:
            raise RequestError(f"--steps {self.steps} is negative.", "Say 0 for the closed form alone.")
        if self.context < 8:
            raise RequestError(f"--context {self.context} is too short to teach anything.", "Give 8 tokens or more.")
        if not 0 <= self.warmup < 1:
            raise RequestError(f"--warmup {self.warmup} is no share of the run.", "Give a number from 0 to below 1.")
        if self.temperature <= 0:
            raise RequestError(f"--temperature {self.temperature} is not positive.", "Say 1 for the model's own voice.")
        if self.patience < 0 or self.cover < 0:
            raise RequestError("A negative patience or cover makes no sense.", "Give 0 for none.")
        if self.resume and self.restart:
            raise RequestError("A run cannot both resume and restart.", "Say one of --resume and --restart.")

    def binding(self) -> dict[str, Any]:
        """The options that a resumed run must share with the run it goes on with."""
        return {name: value for name, value in asdict(self).items() if name not in FREE}

    def recorded(self) -> dict[str, Any]:
        """What a manifest says of them: those that differ from their defaults, without paths of this machine."""
        hidden = {"folder", "output", "source", "log", "overwrite", "resume", "restart", "prompts"}
        default = {field.name: field.default for field in fields(self)}
        return {
            name: value for name, value in asdict(self).items() if name not in hidden and value != default.get(name)
        }


def _check_positive(name: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise RequestError(f"--{name.replace('_', '-')} {value} is not positive.", "Give a number above 0.")
