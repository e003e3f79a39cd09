"""The processes of one `torchrun`, which share the work of encoding."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

PATIENCE: Final = timedelta(hours=12)  # ranks wait for the slowest: an encoder on one GPU of many may take long


@dataclass(frozen=True)
class Ranks:
    """The process itself among its peers; alone outside of torchrun."""

    rank: int = 0
    world: int = 1

    def same(self, value: Any) -> Any:
        """The value that rank 0 has, on all ranks."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0, group=_group())
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, on all ranks; also a barrier."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        box: list[Any] = [None] * self.world
        dist.all_gather_object(box, value, group=_group())
        return box


_GROUPS: list[Any] = []


def _group() -> Any:
    """A gloo group, whatever backend the program's own process group has: what is sent lies in main memory."""
    import torch.distributed as dist

    if not _GROUPS:
        _GROUPS.append(dist.new_group(backend="gloo", timeout=PATIENCE))
    return _GROUPS[0]


def ranks() -> Ranks:
    """Who this process is. Joins the process group that torchrun describes, where the program has not yet."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        return Ranks()
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=PATIENCE)
        atexit.register(_leave)
    return Ranks(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    import torch.distributed as dist

    _GROUPS.clear()
    if dist.is_initialized():
        dist.destroy_process_group()
