"""The layers of a causal model without its tables: embeddings in, states out. One body serves teacher and student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tokenadapt import forward
from tokenadapt.calibration.head import Shape
from tokenadapt.errors import RequestError


@dataclass(frozen=True)
class Asked:
    """What a reading must leave beside the final states: layers by index, and attention of the first modules."""

    layers: tuple[int, ...] = ()
    attentions: int = 0


class Undoing(Protocol):
    """What is trained inside the layers, if anything: `layers.py`."""

    def undone(self) -> AbstractContextManager[None]:
        """Within this, the layers are as they were loaded."""
        ...


class Unchanged:
    """Frozen layers: teacher and student are one."""

    def undone(self) -> AbstractContextManager[None]:
        """Nothing to undo."""
        return nullcontext()


@dataclass(frozen=True)
class Reading:
    """What a body left after reading a batch."""

    final: Tensor  # (B, T, D), after the last norm: what the head reads
    layers: dict[int, Tensor]  # index in hidden_states -> (B, T, D)
    attention: tuple[Tensor, ...]  # outputs of the first attention modules, (B, T, D) each


class Body:
    """A model's layers; its own tables are thrown away."""

    def __init__(self, model: Any) -> None:
        head = forward.Head(model)
        if not head.plain:
            raise RequestError(
                "The model does more between its layers and its logits than this program knows.",
                "Only causal models whose head follows their layers can be calibrated.",
            )
        self.shape = Shape(head.scale, head.cap)
        self.scale = _embedding_scale(model.get_input_embeddings())
        self.config = model.config
        self.core: nn.Module = model.base_model
        self.prefix: str = model.base_model_prefix
        _drop_tables(model)
        self.core.requires_grad_(False).eval()
        self._attention = _attention_modules(self.core)
        self._layers = _layer_modules(self.core, self.depth)
        self.changes: Undoing = Unchanged()

    def as_teacher(self) -> AbstractContextManager[None]:
        """Within this, the layers are the source's own, whatever was trained in them."""
        return self.changes.undone()

    @property
    def depth(self) -> int:
        """Number of layers."""
        return int(self.config.get_text_config().num_hidden_layers)

    @property
    def positions(self) -> int:
        """How many tokens it reads at most."""
        from tokenadapt.evaluation.score import model_positions

        return model_positions(self)  # type: ignore[arg-type]  # reads its config only

    def layer(self, setting: str, default: float = 1.0) -> int:
        """An index or a relative depth to a place in the list of hidden states (0: what the first layer reads)."""
        if not setting:
            return round(default * self.depth)
        value = float(setting)
        if "." in setting and 0 <= value <= 1:
            return round(value * self.depth)
        if value != int(value) or not -self.depth - 1 <= value <= self.depth:
            raise RequestError(
                f"There is no layer {setting} in a model of {self.depth} layers.",
                f"Give an index from {-self.depth - 1} to {self.depth}, or a relative depth from 0.0 to 1.0.",
            )
        return int(value) % (self.depth + 1)

    def attentions(self, share: float) -> int:
        """How many attention modules the first `share` of the layers has."""
        if not self._attention:
            raise RequestError("No attention modules were found in this model.", "Leave out the objective attention.")
        return max(1, round(min(1.0, share) * len(self._attention)))

    def read_to(self, layer: int, embedded: Tensor) -> Tensor:
        """States at an index of hidden_states; the layers behind it are not run where the model lists its layers."""
        behind = self._layers[layer] if 0 < layer < len(self._layers) else None
        if behind is None:
            return self.read(embedded, Asked(layers=(layer,))).layers[layer]
        caught: list[Tensor] = []

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append(args[0] if args else kwargs["hidden_states"])
            raise _FarEnoughError

        hook = behind.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            self.read(embedded)
        except _FarEnoughError:
            pass
        finally:
            hook.remove()
        return caught[0]

    def read(self, embedded: Tensor, asked: Asked = Asked()) -> Reading:  # frozen
        """Run the layers over rows of a table, padded on the right: (B, T, D). No mask: padding is seen by nobody."""
        caught: list[Tensor] = []
        with _watching(self._attention[: asked.attentions], caught):
            out = self.core(
                inputs_embeds=embedded * self.scale if self.scale != 1 else embedded,
                use_cache=False,
                output_hidden_states=bool(asked.layers),
            )
        layers = {index: out.hidden_states[index] for index in asked.layers}
        return Reading(out[0], layers, tuple(caught))


def open_body(folder: Path, dtype: torch.dtype, device: torch.device, *, trust_remote_code: bool = False) -> Body:
    """Load a checkpoint's layers."""
    model = forward.load_model(folder, "causal", dtype, trust_remote_code=trust_remote_code)
    return Body(model.to(device))


class _FarEnoughError(Exception):
    """Leaves a reading early."""


def _layer_modules(core: nn.Module, depth: int) -> list[nn.Module]:
    """The layers in order, where the model holds them in one list; else none."""
    found = [module for module in core.modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    return list(found[0]) if len(found) == 1 else []


@contextmanager
def _watching(modules: Sequence[nn.Module], caught: list[Tensor]) -> Iterator[None]:
    """Within this, outputs of `modules` are kept in order."""

    def keep(module: nn.Module, given: Any, out: Any) -> None:
        caught.append(out[0] if isinstance(out, tuple) else out)

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _attention_modules(core: nn.Module) -> list[nn.Module]:
    """One module per layer, in order: the outermost ones whose class calls itself attention."""
    found: list[tuple[str, nn.Module]] = []
    for name, module in core.named_modules():
        inside = any(name.startswith(outer + ".") for outer, _ in found)
        if not inside and type(module).__name__.endswith("Attention"):
            found.append((name, module))
    return [module for _, module in found]


@torch.no_grad()
def _embedding_scale(embed: nn.Module) -> float:
    """By what an embedding module multiplies its rows (Gemma 3 does; Gemma 2 does so in its layers)."""
    weight: Tensor = embed.weight  # type: ignore[assignment]
    probe = torch.arange(min(64, len(weight)), device=weight.device)
    ours, theirs = weight[probe].float(), embed(probe).float()
    scale = float((ours * theirs).sum() / (ours * ours).sum().clamp(min=1e-30))
    if not torch.allclose(ours * scale, theirs, rtol=1e-2, atol=1e-2 * float(theirs.abs().max())):
        raise RequestError(
            "The model changes the rows of its embedding table before its layers read them.",
            "Such a model cannot be calibrated.",
        )
    declared = getattr(embed, "embed_scale", None)
    if declared is not None:
        return float(declared)
    return 1.0 if abs(scale - 1) < 1e-3 else scale


def _drop_tables(model: Any) -> None:
    """Free the memory of a model's own tables; its layers are read with rows given from outside."""
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if module is not None:
            module.weight = nn.Parameter(torch.empty(0, device=module.weight.device), requires_grad=False)
