"""What may be trained inside the layers: their norms, or adapters beside their weights. The teacher runs without it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

from tokenadapt.calibration.body import Body
from tokenadapt.checkpoint.source import SourceCheckpoint
from tokenadapt.errors import MissingExtraError, RequestError

ADAPTER: Final = "adapter"  # the folder of adapters that are kept apart
_RATE: Final = 0.12  # by what a table's rate is multiplied for norms, and for adapters of the usual rank
_RANK: Final = 16  # that rank: all numbers of an adapter step together, so that a wider one goes farther


class Changes(Protocol):
    """Parameters inside a body that are trained."""

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """By the names of the body's parameters."""
        ...

    @property
    def rate(self) -> float:
        """By what a table's rate is multiplied for them."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What the checkpoint's tensors have become, by the names of the body's parameters."""
        ...


class Norms:
    """All weights of the layers' norms."""

    rate = _RATE

    def __init__(self, body: Body) -> None:
        found = {
            f"{name}.{inner}": parameter
            for name, module in body.core.named_modules()
            if type(module).__name__.endswith(("Norm", "norm"))
            for inner, parameter in module.named_parameters(recurse=False)
        }
        if not found:
            raise RequestError("No norms were found in this model.", "Use --train rows.")
        self.parameters: Mapping[str, nn.Parameter] = found
        self._own = {name: parameter.detach().clone() for name, parameter in found.items()}
        for parameter in found.values():
            parameter.requires_grad_(True)
        body.changes = self

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Within this, the norms are as they were loaded."""
        trained = {name: parameter.data for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            parameter.data = self._own[name]
        try:
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = trained[name]

    def tensors(self) -> dict[str, Tensor]:
        """The trained norms."""
        return {name: parameter.detach().cpu() for name, parameter in self.parameters.items()}


class Lora:
    """Low-rank adapters beside every linear map of the layers, through peft."""

    def __init__(self, body: Body, rank: int, seed: int) -> None:
        try:
            import peft
        except ImportError:
            raise MissingExtraError("--train lora", "peft", "lora") from None
        torch.manual_seed(seed)  # adapters begin at random
        self.rate = _RATE * _RANK / rank
        self.config = peft.LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules="all-linear")
        self.prefix = body.prefix
        peft.inject_adapter_in_model(self.config, body.core)
        self.modules: dict[str, Any] = {
            name: module for name, module in body.core.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)
        }
        self.parameters: Mapping[str, nn.Parameter] = {
            name: parameter for name, parameter in body.core.named_parameters() if ".lora_" in name
        }
        for parameter in self.parameters.values():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        body.changes = self

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Within this, the adapters do nothing."""
        self._switch(False)
        try:
            yield
        finally:
            self._switch(True)

    def _switch(self, on: bool) -> None:
        for module in self.modules.values():
            module.enable_adapters(on)
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)  # peft freezes what it switches off

    @torch.no_grad()
    def tensors(self) -> dict[str, Tensor]:
        """Weights with their adapters merged."""
        return {
            f"{name}.weight": (module.get_base_layer().weight.float() + module.get_delta_weight("default")).cpu()
            for name, module in self.modules.items()
        }

    def save(self, folder: Path) -> None:
        """Write the adapters as peft does, for `PeftModel.from_pretrained(model, folder)`."""
        from safetensors.torch import save_file

        folder.mkdir()
        start = f"base_model.model.{self.prefix}."
        state = {
            start + name.replace(".default", ""): parameter.detach().cpu().contiguous()
            for name, parameter in self.parameters.items()
        }
        save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        self.config.save_pretrained(str(folder))
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        settings["target_modules"] = sorted({name.rsplit(".", 1)[-1] for name in self.modules})
        (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def file_names(checkpoint: SourceCheckpoint, names: Sequence[str]) -> dict[str, str]:
    """Under which name a checkpoint holds each parameter of its body; RequestError where one has no tensor of its own.

    Files spell a name with or without the model's prefix.
    """
    held = [ref.name for shard in checkpoint.shards for ref in shard.tensors]
    found = {}
    for name in names:
        fits = [one for one in held if one == name or one.endswith("." + name)]
        if len(fits) != 1:
            raise RequestError(
                f"The parameter {name} is not one tensor of the checkpoint, so it cannot be written back.",
                "Use --train rows, or --train lora --keep-adapter.",
            )
        found[name] = fits[0]
    return found
