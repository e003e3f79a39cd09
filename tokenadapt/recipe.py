"""Every option of a command as one frozen dataclass, to and from YAML.

A recipe is a YAML file whose keys are a command's options, spelled as on the command line without the dashes
(`output-method` and `output_method` are the same key). Recipes that ship are found by name.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from tokenadapt.errors import RequestError

SHIPPED: Final = Path(__file__).parent / "recipes"
DTYPES: Final = ("float32", "bfloat16", "float16")
EFFORTS: Final = ("low", "full")
LEVELS: Final = ("auto", "tables", "files", "full")


@dataclass(frozen=True)
class TransplantOptions:
    """What `tokenadapt transplant` may be told."""

    model: str
    tokenizer: str
    output: str
    method: str = "stacked"
    output_method: str | None = None
    effort: str | None = None
    fallback: str = "pieces"
    space: str = "self"
    calibrate_norm: bool = False
    bias_per_piece: float = 0.0
    map: tuple[str, ...] = ()
    map_file: str | None = None
    carry_chat: bool = False
    untie: bool = False
    pad_to_multiple: int = 1
    dtype: str | None = None
    copy: bool = False
    corpus: tuple[str, ...] = ()
    donor: str | None = None
    seed: int = 0
    verify: str = "auto"
    strict: bool = False
    overwrite: bool = False
    revision: str | None = None
    tokenizer_revision: str | None = None
    trust_remote_code: bool = False
    device: str | None = None
    push_to_hub: str | None = None
    public: bool = False

    def __post_init__(self) -> None:
        """Raises RequestError for values that no run can have, wherever they come from."""
        if self.dtype is not None and self.dtype not in DTYPES:
            raise RequestError(f"--dtype {self.dtype} is no type of tables.", f"Say one of: {', '.join(DTYPES)}.")
        if self.effort not in (None, *EFFORTS):
            raise RequestError(f"--effort {self.effort} is no effort.", f"Say one of: {', '.join(EFFORTS)}.")
        if self.verify not in LEVELS:
            raise RequestError(f"--verify {self.verify} is no level.", f"Say one of: {', '.join(LEVELS)}.")
        if not math.isfinite(self.bias_per_piece):
            raise RequestError(f"--bias-per-piece {self.bias_per_piece} is no bias.", "Give a number, -2 for example.")


Options = TypeVar("Options")


def shipped() -> dict[str, Path]:
    """The recipes inside the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def read_recipe(name_or_file: str) -> dict[str, Any]:
    """The settings of a recipe, with underscores in the keys.

    Raises RequestError where there is no such recipe or it is no mapping.
    """
    import yaml

    path = shipped().get(name_or_file) or Path(name_or_file).expanduser()
    if not path.is_file():
        raise RequestError(
            f"There is no recipe {name_or_file!r}.", f"Name a YAML file, or one of: {', '.join(shipped())}."
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place else ""
        raise RequestError(f"The recipe {path} is not valid YAML{where}.", "Mend that line.") from error
    if not isinstance(content, Mapping):
        raise RequestError(f"The recipe {path} holds no settings.", "Write one `option: value` a line.")
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def with_recipe(options: Options, recipe: Mapping[str, Any], explicit: frozenset[str]) -> Options:
    """`options` with a recipe's settings, except those in `explicit`, which the command line gave.

    Raises RequestError for a key that is no option and for a value of the wrong type.
    """
    hints = get_type_hints(type(options))
    unknown = sorted(set(recipe) - set(hints))
    if unknown:
        known = ", ".join(name.replace("_", "-") for name in hints)
        raise RequestError(f"The recipe sets {unknown[0]!r}, which is no option.", f"Options are: {known}.")
    chosen = {key: _checked(key, value, hints[key]) for key, value in recipe.items() if key not in explicit}
    return replace(options, **chosen)  # type: ignore[type-var]


def to_yaml(options: Any) -> str:
    """A dataclass of options as YAML, without those that stand at their default."""
    import yaml

    kept = {}
    for field in fields(options):
        value = getattr(options, field.name)
        if field.default is MISSING or value != field.default:
            kept[field.name.replace("_", "-")] = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _checked(key: str, value: Any, wanted: Any) -> Any:
    option = key.replace("_", "-")
    if get_origin(wanted) in (Union, types.UnionType):
        if value is None:
            return None
        wanted = next(part for part in get_args(wanted) if part is not type(None))
    if get_origin(wanted) is tuple:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return tuple(items)
    elif wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        return value
    kind = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(wanted, "a list of texts")
    raise RequestError(f"The recipe sets {option} to {value!r}.", f"{option} takes {kind}.")
