"""What a user types after --method: `NAME[:key=value,...]`, checked against the method's own parameters."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from tokenadapt.errors import RequestError
from tokenadapt.methods.registry import MethodFunction, find


@dataclass(frozen=True)
class Bound:
    """Which numbers an option takes."""

    low: float
    high: float = float("inf")
    above: bool = False  # low itself is excluded

    def holds(self, value: float) -> bool:
        """Whether the value is inside."""
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        least = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return least if self.high == float("inf") else f"{least} and at most {self.high:g}"


Positive = Annotated[float, Bound(0, above=True)]
NonNegative = Annotated[float, Bound(0)]
Share = Annotated[float, Bound(0, 1)]
Count = Annotated[int, Bound(1)]


@dataclass(frozen=True)
class Parameter:
    """One keyword-only parameter of a method."""

    name: str
    kind: Any  # int, float, bool, str, Path or a Literal
    default: Any
    bound: Bound | None = None

    @property
    def required(self) -> bool:
        """Whether the method cannot do without it."""
        return self.default is inspect.Parameter.empty

    @property
    def values(self) -> str:
        """What may be given, in words."""
        if get_origin(self.kind) is Literal:
            return "one of " + ", ".join(map(str, get_args(self.kind)))
        word = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}.get(self.kind, "text")
        return f"{word} {self.bound}" if self.bound else word

    def read(self, text: str) -> Any:
        """The value that `text` spells; ValueError where it spells none."""
        if get_origin(self.kind) is Literal:
            by_text = {str(value): value for value in get_args(self.kind)}
            if text not in by_text:
                raise ValueError
            return by_text[text]
        if self.kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        value = self.kind(text)
        if isinstance(value, float | int) and (value != value or (self.bound and not self.bound.holds(value))):
            raise ValueError
        return value


@dataclass(frozen=True)
class Chosen:
    """A method and the options that a user gave it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The spelling that `parse_method` reads back."""
        if not self.options:
            return self.name
        return f"{self.name}:{','.join(f'{key}={_spell(value)}' for key, value in self.options.items())}"

    @property
    def settings(self) -> dict[str, Any]:
        """Every parameter with the value that the method will see, as JSON has it: for the manifest.

        A file is its path and the hash of what it holds now.
        """
        known = parameters(find(self.name).load())
        whole = {name: self.options.get(name, parameter.default) for name, parameter in known.items()}
        return {name: _plain(value) for name, value in whole.items() if value is not inspect.Parameter.empty}

    @property
    def paths(self) -> list[Path]:
        """Files that the options name: for the manifest's hashes."""
        return [value for value in self.options.values() if isinstance(value, Path)]


def _plain(value: object) -> object:
    """A value that JSON can hold."""
    if not isinstance(value, Path):
        return value
    if not value.is_file():
        return {"file": str(value)}
    digest = hashlib.sha256()
    with value.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return {"file": str(value), "sha256": digest.hexdigest()}


def _spell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def parameters(function: MethodFunction) -> dict[str, Parameter]:
    """A method's own parameters: its keyword-only arguments, in order."""
    hints = get_type_hints(function, include_extras=True)
    found = {}
    for name, argument in inspect.signature(function).parameters.items():
        if argument.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        kind, bound = hints[name], None
        if get_origin(kind) is Annotated:
            kind, bound = get_args(kind)[:2]
        if type(None) in get_args(kind):
            kind = next(part for part in get_args(kind) if part is not type(None))
        found[name] = Parameter(name, kind, argument.default, bound)
    return found


def parse_method(text: str) -> Chosen:
    """Read `NAME[:key=value,...]`; RequestError names what exists where something does not."""
    name, _, rest = text.strip().partition(":")
    known = parameters(find(name).load())
    options: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (side.strip() for side in part.partition("="))
        if key not in known:
            has = f"Its options are: {', '.join(known)}." if known else "It takes no options."
            raise RequestError(f"The method {name} has no option {key!r}.", has)
        if not equals or not value:
            raise RequestError(f"The option {key!r} of the method {name} has no value.", f"Write {name}:{key}=VALUE.")
        try:
            options[key] = known[key].read(value)
        except (ValueError, KeyError):
            raise RequestError(
                f"{value!r} is no value for the option {key} of the method {name}.", f"Give {known[key].values}."
            ) from None
    lacking = [key for key, parameter in known.items() if parameter.required and key not in options]
    if lacking:
        given = [f"{key}={_spell(value)}" for key, value in options.items()]
        wants = ",".join([*given, *(f"{key}={known[key].values.split()[-1].upper()}" for key in lacking)])
        raise RequestError(f"The method {name} cannot do without {' and '.join(lacking)}.", f"Write {name}:{wants}.")
    return Chosen(name, options)
