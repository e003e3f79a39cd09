"""A body and a pair of tables as one language model: what learns (the student), and what is learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutput

from tokenadapt.calibration.body import Asked, Body, Reading
from tokenadapt.calibration.head import SplitHead
from tokenadapt.calibration.split import SplitTable
from tokenadapt.plan import Role


class Speaker(nn.Module):
    """Token ids in, states and log-probabilities out. Evaluation scores it as it scores any model.

    `tables` has one entry per table: a tied model's has the role `output` only.
    """

    def __init__(self, body: Body, tables: Mapping[Role, SplitTable]) -> None:
        super().__init__()
        self.body, self.config = body, body.config
        self.output = tables["output"]
        self.input = tables.get("input", self.output)
        self.head = SplitHead(self.output, body.shape)
        self.base_model = _Reader(self)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.output.frozen.device

    def tables(self) -> dict[Role, SplitTable]:
        """The tables by role; one for a tied model."""
        if self.input is self.output:
            return {"output": self.output}
        return {"input": self.input, "output": self.output}

    def read(self, ids: Tensor, asked: Asked = Asked()) -> Reading:  # noqa: B008  # frozen
        """Read token ids (B, T)."""
        return self.body.read(self.input.lookup(ids), asked)

    def read_to(self, layer: int, ids: Tensor) -> Tensor:
        """What the layer by that index in hidden_states holds after ids (B, T): (B, T, D)."""
        return self.body.read_to(layer, self.input.lookup(ids))

    def forward(self, input_ids: Tensor, **given: Any) -> CausalLMOutput:
        """Logits in the order of ids, as transformers' models give them."""
        states = self.base_model(input_ids=input_ids, **given)[0]
        logits = self.head.logits(states.flatten(0, -2))
        return CausalLMOutput(logits=logits[:, self.output.place].reshape(*states.shape[:-1], -1))


class _Reader(nn.Module):
    """The layers below the head as a module of their own, which evaluation runs apart."""

    def __init__(self, speaker: Speaker) -> None:
        super().__init__()
        self.__dict__["speaker"] = speaker  # no child: the parent holds it

    def forward(self, input_ids: Tensor, **given: Any) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=self.__dict__["speaker"].read(input_ids).final)
