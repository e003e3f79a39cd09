"""The table of methods. A method's module is imported when it is chosen."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from tokenadapt.errors import RequestError

if TYPE_CHECKING:
    from tokenadapt.plan import Dense, Plan

Need = Literal["space", "model", "corpus", "donor", "files"]
NEEDS: Final[dict[Need, str]] = {
    "space": "vectors of strings (--space)",
    "model": "the source model itself",
    "corpus": "text (--corpus)",
    "donor": "a model that has the target tokenizer (--donor)",
    "files": "files named by its own options",
}
GIVE: Final[dict[Need, str]] = {"space": "--space SPEC", "corpus": "--corpus FILE", "donor": "--donor MODEL"}
MethodFunction = Callable[..., "Plan | Dense"]


@dataclass(frozen=True)
class Method:
    """A line of the registry."""

    name: str
    summary: str
    citation: str
    needs: tuple[Need, ...]
    module: str  # under tokenadapt.methods; holds a function of the method's name

    def load(self) -> MethodFunction:
        """The function, imported now."""
        module = importlib.import_module(f"tokenadapt.methods.{self.module}")
        function: Any = getattr(module, FUNCTIONS.get(self.name, self.name))
        return function  # type: ignore[no-any-return]


FUNCTIONS: Final = {"global": "global_"}  # names that Python keeps for itself

METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Method("zero", "all zeros (a baseline: a zero output row often wins)", "", (), "constant"),
        Method("mean", "mean of the old ordinary rows", "", (), "constant"),
        Method(
            "normal",
            "a draw from the old rows' normal distribution",
            "Hewitt 2021; Mundra et al. 2024, arXiv:2407.05841",
            (),
            "normal",
        ),
        Method("pieces", "mean of the old pieces", "Gee et al. 2022, arXiv:2402.09977 (FVT)", (), "pieces"),
        Method("length", "old pieces weighted by their length", "", (), "length"),
        Method("ends", "input: last piece; output: front-loaded pieces", "transplant-vocab", (), "ends"),
        Method(
            "asymmetric",
            "input: pieces with calibrated norms; output: pieces by length",
            "arXiv:2608.03494",
            (),
            "asymmetric",
        ),
        Method(
            "local",
            "old pieces by similarity and length",
            "Sharthak et al. 2025, arXiv:2505.09738 (TokenAdapt)",
            ("space",),
            "local",
        ),
        Method(
            "global",
            "nearest old tokens",
            "Sharthak et al. 2025, arXiv:2505.09738 (TokenAdapt)",
            ("space",),
            "global_",
        ),
        Method(
            "hybrid",
            "local and global together",
            "Sharthak et al. 2025, arXiv:2505.09738 (TokenAdapt)",
            ("space",),
            "hybrid",
        ),
        Method("learned", "pieces, corrected by what old tokens and their pieces teach", "this project", (), "learned"),
        Method(
            "chain",
            "output: first piece and mean, biased by the source's log-probability of the rest",
            "this project",
            ("model",),
            "chain",
        ),
        Method(
            "stacked",
            "input: learned; output: a mix of rules fitted to what the model itself would write",
            "this project (stacking: Wolpert 1992)",
            ("model",),
            "stacked",
        ),
        Method(
            "auto", "the method that does least harm to old tokens that are hidden", "this project", ("model",), "auto"
        ),
        Method("classes", "other methods, by how many pieces a token has", "this project", (), "classes"),
        Method("merge", "means down the target's merge tree", "Yamaguchi et al. 2024, arXiv:2406.11477", (), "merge"),
        Method(
            "align",
            "mean over how running text is cut",
            "Yamaguchi et al. 2024, arXiv:2406.11477",
            ("corpus",),
            "align",
        ),
        Method(
            "clp",
            "copied rows by a donor's cosines",
            "Ostendorff and Rehm 2023, arXiv:2301.09626 (CLP-Transfer)",
            ("donor",),
            "clp",
        ),
        Method(
            "omp",
            "sparse sum of copied rows, found in a donor's space",
            "Goddard and Fernandes Neto 2025, arXiv:2506.06607",
            ("donor",),
            "omp",
        ),
        Method(
            "focus",
            "the copied tokens that are used alike",
            "Dobler and de Melo 2023, arXiv:2305.14481",
            ("corpus",),
            "focus",
        ),
        Method(
            "wechsel",
            "nearest old tokens in aligned word vectors",
            "Minixhofer et al. 2022, arXiv:2112.06598",
            ("files",),
            "wechsel",
        ),
        Method(
            "ofa",
            "nearest old tokens in multilingual word vectors",
            "Liu et al. 2024, arXiv:2311.08849",
            ("files",),
            "ofa",
        ),
        Method(
            "trans",
            "rows of translations",
            "Remy et al. 2024, arXiv:2408.04303 (Trans-Tokenization)",
            ("files",),
            "trans",
        ),
        Method(
            "tokalign",
            "one old row, by how tokens stand to shared ones",
            "Li et al. 2025, arXiv:2506.03523",
            ("corpus",),
            "tokalign",
        ),
        Method(
            "cw2v",
            "learnt inside the hull of old rows by skip-gram",
            "Mundra et al. 2024, arXiv:2407.05841",
            ("corpus",),
            "cw2v",
        ),
        Method(
            "sava",
            "a donor's row, mapped by a fit on copied tokens",
            "Moroni et al. 2025, arXiv:2504.17025",
            ("donor",),
            "sava",
        ),
    )
}


def lacks(name: str, need: Need) -> RequestError:
    """The error of a method that was not given what it needs."""
    how = f"Add {GIVE[need]}" if need in GIVE else "Give it"
    return RequestError(f"The method {name} needs {NEEDS[need]}.", f"{how}, or choose a method that does without.")


def find(name: str) -> Method:
    """The method of that name."""
    if name not in METHODS:
        raise RequestError(f"There is no method {name!r}.", f"Choose one of: {', '.join(METHODS)}.")
    return METHODS[name]
