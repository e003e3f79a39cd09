"""Which tensors of a file are the tables and biases of its model, and whether two tables are one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenadapt.checkpoint.layout import Layout
from tokenadapt.checkpoint.place import digest_range
from tokenadapt.checkpoint.shards import FLOATS, Shard, TensorRef
from tokenadapt.errors import RequestError
from tokenadapt.plan import Role


@dataclass(frozen=True)
class Found:
    """The vocabulary of one checkpoint, by tensor."""

    tied: bool
    tables: Mapping[Role, TensorRef]
    copies: Mapping[Role, tuple[TensorRef, ...]]  # further tensors with a table's bytes
    biases: tuple[TensorRef, ...]
    untied_names: Mapping[Role, str]  # of the tables once they are two
    notes: tuple[str, ...]


def find_tables(folder: Path, layout: Layout, shards: tuple[Shard, ...]) -> Found:
    """Find tables and biases among a folder's tensors; raises RequestError where one is not understood."""
    finder = _Finder(folder, layout, shards)
    finder.refuse_packed()
    finder.refuse_strange()
    inputs = finder.named(layout.input_names - {layout.output}, layout.input)
    outputs = finder.named(layout.output_names - layout.input_names | {layout.output}, layout.output)
    head = outputs[0].name if outputs else layout.output
    named = inputs[0].name if inputs else layout.input
    if not inputs and layout.tied:
        inputs, outputs = outputs, []  # a tied file that keeps its table under the head's name
    if not inputs:
        raise RequestError(
            f"{folder} holds no table of token embeddings under the name {layout.input}.",
            "Check that the folder holds the whole model and not a part or an adapter.",
        )
    finder.refuse_different(inputs)
    finder.refuse_different(outputs)
    finder.refuse_shapes(inputs + outputs)
    tied, notes = finder.settle(inputs[0], outputs)
    tables: dict[Role, TensorRef] = {"input": inputs[0]}
    copies: dict[Role, tuple[TensorRef, ...]] = {"input": (*inputs[1:], *outputs) if tied else tuple(inputs[1:])}
    if not tied:
        tables["output"], copies["output"] = outputs[0], tuple(outputs[1:])
    names: dict[Role, str] = {"input": named, "output": head}
    return Found(tied, tables, copies, tuple(finder.named(layout.biases)), names, notes)


class _Finder:
    """A folder's tensors under the names that the model's code gives them."""

    def __init__(self, folder: Path, layout: Layout, shards: tuple[Shard, ...]) -> None:
        self.folder, self.layout = folder, layout
        self.paths = {shard.name: shard.path for shard in shards}
        # What stands inside a numbered layer is looked at only where it has the vocabulary's size: a mixture of
        # experts has tens of thousands of names.
        self.near = [
            ref
            for shard in shards
            for ref in shard.tensors
            if layout.rows in ref.shape or not any(part.isdigit() for part in ref.name.split("."))
        ]
        exact = {ref.name: layout.renamed(ref.name) for ref in self.near}
        taken = layout.known & set(exact.values())
        self.spelled = {name: self._by_tail(known, taken) for name, known in exact.items()}

    def _by_tail(self, name: str, taken: frozenset[str]) -> str:
        """The name by its last two parts, where the library's rules left it unplaced and a table is still missing."""
        if name in self.layout.known or any(part.isdigit() for part in name.split(".")):
            return name
        wanted = (self.layout.input_names | self.layout.output_names | self.layout.biases) - taken
        alike = [known for known in wanted if known.split(".")[-2:] == name.split(".")[-2:]]
        return alike[0] if len(alike) == 1 else name

    def named(self, names: frozenset[str], first: str = "") -> list[TensorRef]:
        """The tensors that the code calls by one of `names`, `first` before others."""
        refs = [ref for ref in self.near if self.spelled[ref.name] in names]
        return sorted(refs, key=lambda ref: (self.spelled[ref.name] != first, ref.name))

    def settle(self, table: TensorRef, outputs: list[TensorRef]) -> tuple[bool, tuple[str, ...]]:
        """Whether one table serves both roles, and what to say. Where flag and file differ, the file is believed.

        So does transformers 5, which does not tie two tables that differ; a head that is in no file cannot be
        anything but the input table.
        """
        says, silent = self.layout.tied, self.layout.kind == "seq2seq"  # T5's flag means something else
        if not outputs:
            note = "config.json unties input and output, but the file has no output table: taken as tied."
            return True, () if says else (note,)
        name = outputs[0].name
        if says and self._digest(table) == self._digest(outputs[0]):
            return True, (f"The file repeats the tied table as {name}: both are written with the new rows.",)
        note = f"config.json ties input and output, but {name} in the file is another table: taken as two tables."
        return False, (note,) if says and not silent else ()

    def _digest(self, ref: TensorRef) -> str:
        return digest_range(self.paths[ref.shard], ref.offset, ref.nbytes)

    def refuse_different(self, refs: list[TensorRef]) -> None:
        """All copies of one table hold the same bytes."""
        if len(refs) > 1 and len({self._digest(ref) for ref in refs}) > 1:
            raise RequestError(
                f"Several tables of {self.folder} differ for one vocabulary ({', '.join(ref.name for ref in refs)}).",
                "Only models with one shared vocabulary can be transplanted.",
            )

    def refuse_shapes(self, refs: list[TensorRef]) -> None:
        """Every table has the shape that the model's code will ask for."""
        for ref in refs:
            if ref.shape != (self.layout.rows, self.layout.width):
                raise RequestError(
                    f"The table {ref.name} of {self.folder} has shape {list(ref.shape)}, where config.json asks for "
                    f"[{self.layout.rows}, {self.layout.width}].",
                    "Correct config.json (vocab_size), or take the checkpoint again.",
                )

    def refuse_strange(self) -> None:
        """Whatever has the vocabulary's size is a table or a bias of the model, or of no concern to the vocabulary."""
        strange = list(self.layout.strange)
        for ref in self.near:
            if self.layout.rows in ref.shape and self.spelled[ref.name] not in self.layout.known:
                strange.append(ref.name)
        if strange:
            raise RequestError(
                f"{self.folder} has tensors over the vocabulary that are no plain table or bias "
                f"({', '.join(strange[:3])}).",
                "Models with per-layer embeddings, extra prediction heads or several vocabularies are not supported.",
            )

    def refuse_packed(self) -> None:
        """The tables are plain numbers, without scales or codes beside them."""
        modules = [name.rpartition(".")[0] for name in (self.layout.input, self.layout.output)]
        for ref in self.near:
            parent, _, leaf = self.spelled[ref.name].rpartition(".")
            inside = any(parent == module or parent.startswith(f"{module}.") for module in modules)
            if inside and (leaf not in ("weight", "bias") or parent not in modules or ref.dtype not in FLOATS):
                raise RequestError(
                    f"The tables of {self.folder} are quantised or packed ({ref.name}, {ref.dtype}).",
                    "Transplant the checkpoint in bfloat16, float16 or float32, and quantise the result.",
                )
