"""Which methods a run takes, parsed from its options before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokenadapt.methods import Chosen, parse_method
from tokenadapt.methods.options import parameters
from tokenadapt.methods.registry import find
from tokenadapt.methods.within import needs_of
from tokenadapt.plan import Role
from tokenadapt.recipe import TransplantOptions
from tokenadapt.spaces.open import check_spec


@dataclass(frozen=True)
class Choice:
    """Which method makes which role, and what follows it."""

    methods: Mapping[Role, Chosen]
    fallback: Chosen
    calibrate_norm: bool
    bias_per_piece: float

    @property
    def calibration(self) -> str:
        """What follows the sums, so that a plan can be applied elsewhere: read by apply_plan."""
        parts = ["norm"] if self.calibrate_norm else []
        return ",".join(parts + ([f"bias={self.bias_per_piece!r}"] if self.bias_per_piece else []))

    @property
    def needs_space(self) -> bool:
        """Whether any method asks for vectors."""
        return any("space" in needs_of(chosen) for chosen in (*self.methods.values(), self.fallback))


def choose(options: TransplantOptions, roles: tuple[Role, ...]) -> Choice:
    """Parse the methods that were asked for; a wrong name fails here, before anything is read."""
    check_spec(options.space)
    main = _with_effort(parse_method(options.method), options.effort)
    output = _with_effort(parse_method(options.output_method), options.effort) if options.output_method else main
    methods = {role: output if role == "output" and len(roles) == 2 else main for role in roles}
    fallback = parse_method(options.fallback)
    for chosen in (*methods.values(), fallback):
        needs_of(chosen)  # the candidates of auto are names as well
    return Choice(methods, fallback, options.calibrate_norm, options.bias_per_piece)


def _with_effort(chosen: Chosen, effort: str | None) -> Chosen:
    """The method with --effort, where it knows of effort and was told of none itself."""
    known = parameters(find(chosen.name).load())
    if effort is None or "effort" in chosen.options or "effort" not in known:
        return chosen
    return Chosen(chosen.name, {**chosen.options, "effort": effort})
