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
    copies: Mapping[Role, tuple[TensorRef, ...]]
    biases: tuple[TensorRef, ...]
    head_copy: str | None  # the tensor that repeats a tied table under the head's name
    notes: tuple[str, ...]


class _Finder:
    """Matches the model's own names to those of the file and settles what is tied."""

    def __init__(self, folder: Path, layout: Layout, shards: tuple[Shard, ...]) -> None:
        self.folder, self.layout = folder, layout
        self.paths = {shard.name: shard.path for shard in shards}
        self.all = [tensor for shard in shards for tensor in shard.tensors]
        self.sized = [tensor for tensor in self.all if layout.rows in tensor.shape]
        self.spelled = {tensor.name: self._spell(tensor) for tensor in self.sized}

    def _spell(self, tensor: TensorRef) -> str:
        """The code's name; by the last two parts of the name where the library's own rules do not place it."""
        name = self.layout.renamed(tensor.name)
        if name in self.layout.known:
            return name
        tail = name.split(".")[-2:]
        wanted = self.layout.input_names | self.layout.output_names | self.layout.biases
        alike = [known for known in wanted if known.split(".")[-2:] == tail]
        return alike[0] if len(alike) == 1 else name

    def _named(self, names: frozenset[str], first: str) -> list[TensorRef]:
        refs = [tensor for tensor in self.sized if self.spelled[tensor.name] in names]
        return sorted(refs, key=lambda ref: (self.spelled[ref.name] != first, ref.name))

    def find(self) -> Found:
        layout = self.layout
        self._refuse_strangers()
        inputs = self._named(layout.input_names - {layout.output}, layout.input)
        outputs = self._named(layout.output_names - layout.input_names | {layout.output}, layout.output)
        self._refuse_quantised(inputs, outputs)
        if not inputs and outputs and layout.tied:
            inputs, outputs = outputs, []  # a tied file that keeps its table under the head's name
        if not inputs:
            raise self._no_table()
        notes: list[str] = []
        self._refuse_different(inputs)
        self._refuse_different(outputs)
        tied = self._settle(inputs, outputs, notes)
        if tied:
            tables: dict[Role, TensorRef] = {"input": inputs[0]}
            copies: dict[Role, tuple[TensorRef, ...]] = {"input": (*inputs[1:], *outputs)}
        else:
            tables = {"input": inputs[0], "output": outputs[0]}
            copies = {"input": tuple(inputs[1:]), "output": tuple(outputs[1:])}
        for ref in tables.values():
            if len(ref.shape) != 2 or ref.shape != (layout.rows, inputs[0].shape[1]):
                raise RequestError(
                    f"The table {ref.name} of {self.folder} has shape {list(ref.shape)}, where its model needs "
                    f"[{layout.rows}, {inputs[0].shape[1]}].",
                    "Input and output tables of one width, a row per token, can be transplanted.",
                )
        biases = self._named(layout.biases, "")
        head = outputs[0].name if tied and outputs else None
        return Found(tied, tables, copies, tuple(biases), head, tuple(notes))

    def _settle(self, inputs: list[TensorRef], outputs: list[TensorRef], notes: list[str]) -> bool:
        """Whether one table serves both roles. Where flag and file contradict each other, the file is believed.

        So does transformers 5, which does not tie two tables that differ; a head that is in no file cannot be
        anything but the input table.
        """
        says = self.layout.tied
        if not outputs:
            if not says:
                notes.append(
                    "config.json says that input and output are not tied, but the file has no output table: "
                    "taken as tied."
                )
            return True
        if says and self._digest(inputs[0]) == self._digest(outputs[0]):
            notes.append(f"The file repeats the tied table as {outputs[0].name}; the repetition is kept in step.")
            return True
        if says:
            notes.append(
                f"config.json says that input and output are tied, but {outputs[0].name} in the file differs "
                "from the input table: taken as two tables."
            )
        return False

    def _digest(self, ref: TensorRef) -> str:
        return digest_range(self.paths[ref.shard], ref.offset, ref.nbytes)

    def _refuse_different(self, refs: list[TensorRef]) -> None:
        if len(refs) > 1 and len({self._digest(ref) for ref in refs}) > 1:
            raise RequestError(
                f"Several tables of {self.folder} differ for one vocabulary ({', '.join(ref.name for ref in refs)}).",
                "Only models with one shared vocabulary can be transplanted.",
            )

    def _refuse_strangers(self) -> None:
        strange = list(self.layout.strange)
        strange += [ref.name for ref in self.sized if self.spelled[ref.name] not in self.layout.known]
        if strange:
            raise RequestError(
                f"{self.folder} has tensors over the vocabulary that are no plain table or bias "
                f"({', '.join(strange[:3])}).",
                "Models with per-layer embeddings, extra prediction heads or several vocabularies are not supported.",
            )

    def _refuse_quantised(self, inputs: list[TensorRef], outputs: list[TensorRef]) -> None:
        modules = {name.rpartition(".")[0] for name in (self.layout.input, self.layout.output)}
        bad = [ref for ref in inputs + outputs if ref.dtype not in FLOATS]
        for ref in self.all:
            parent, _, leaf = self.layout.renamed(ref.name).rpartition(".")
            module = next((module for module in modules if f"{parent}.".startswith(f"{module}.")), None)
            if module and (parent != module or leaf not in ("weight", "bias")):
                bad.append(ref)
        if bad:
            raise RequestError(
                f"The tables of {self.folder} are quantised or packed ({bad[0].name}, {bad[0].dtype}).",
                "Transplant the checkpoint in bfloat16, float16 or float32 and quantise the result.",
            )

    def _no_table(self) -> RequestError:
        names = [ref for ref in self.all if self.layout.renamed(ref.name) in self.layout.input_names]
        if names:
            return RequestError(
                f"The table {names[0].name} of {self.folder} has shape {list(names[0].shape)}, "
                f"but config.json counts {self.layout.rows} tokens.",
                "Correct vocab_size in config.json, or take the checkpoint again.",
            )
        return RequestError(
            f"{self.folder} holds no table of token embeddings under the name {self.layout.input}.",
            "Check that the folder holds the whole model and not an adapter.",
        )


def find_tables(folder: Path, layout: Layout, shards: tuple[Shard, ...]) -> Found:
    """Find tables and biases among a folder's tensors; raises RequestError where one is not understood."""
    return _Finder(folder, layout, shards).find()
