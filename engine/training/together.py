"""Two ways of several processes to train one model: a copy each, or a part each (FSDP).

Both add gradients up instead of averaging them, because a step's loss is the mean over all its
trained tokens, whoever had them. Imported where torch is loaded already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from engine.training.masks import Example
from engine.training.team import in_pieces

BUCKET_ELEMENTS = 2**24  # gradients sent at once
# Others wait while the first writes a checkpoint. A process that died is noticed by its parent.
PATIENCE = timedelta(hours=4)


@contextmanager
def joined(host: str, port: int, rank: int, count: int, device: str) -> Iterator[None]:
    """Be one of the processes that meet at a port."""
    import torch
    from torch import distributed

    backend = "gloo"
    if device != "cpu":
        torch.cuda.set_device(rank)
        backend = f"cpu:gloo,{device}:nccl"
    store = distributed.TCPStore(host, port, is_master=False)
    distributed.init_process_group(
        backend, store=store, rank=rank, world_size=count, timeout=PATIENCE
    )
    yield
    distributed.destroy_process_group()  # not after an error: the others may wait for this one


@dataclass(frozen=True, slots=True)
class Replicas:
    """Every process holds the whole model; its gradients meet after the last micro-batch."""

    rank: int
    count: int
    is_split = False

    @property
    def is_first(self) -> bool:
        """Tell whether this process is the one that writes files."""
        return self.rank == 0

    def agree(self, is_true: Callable[[], bool]) -> bool:
        """Return the answer of the first process, which acts alone."""
        return self.is_first and is_true()

    def micro_batches(self, rows: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
        """Yield the micro-batches of this process's share."""
        return in_pieces(rows[self.rank :: self.count], size)

    def add_up(self, learning: Sequence[tuple[str, Any]], total: Any, num_halvings: int) -> int:
        """Add gradients and losses of all processes, in place; return the most halvings of one."""
        import torch
        from torch import distributed

        parameters = [parameter for _, parameter in learning]
        facts = torch.tensor([num_halvings, *(p.grad is not None for p in parameters)])
        distributed.all_reduce(facts, distributed.ReduceOp.MAX)
        most, *has_gradient = facts.tolist()
        used = [p for p, has in zip(parameters, has_gradient, strict=True) if has]
        for bucket in _buckets(used):
            _add_up(bucket)
        distributed.all_reduce(total)
        return int(most)

    def total(self, value: Any) -> Any:
        """Return a tensor added up over all processes."""
        return _added_up(value)

    def whole(self, tensor: Any) -> Any:
        """Return a tensor on the CPU."""
        return tensor.detach().cpu().contiguous()

    def like(self, parameter: Any, whole: Any) -> Any:
        """Return a tensor on the parameter's device."""
        return whole.to(parameter.device)


@dataclass(frozen=True, slots=True)
class Split:
    """Every process holds a part of every tensor, and all do everything at the same time."""

    rank: int
    count: int
    device: str
    is_split = True

    @property
    def is_first(self) -> bool:
        """Tell whether this process is the one that writes files."""
        return self.rank == 0

    def split(self, model: Any) -> None:
        """Keep only this process's part of a model; its blocks are put together one at a time."""
        from torch.distributed import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        mesh = init_device_mesh(self.device, (self.count,))
        for module in [*_blocks(model), model]:
            fully_shard(module, mesh=mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(enable=True)

    def agree(self, is_true: Callable[[], bool]) -> bool:
        """Return the answer of the first process to all of them."""
        import torch
        from torch import distributed

        answer = torch.tensor(int(self.is_first and is_true()))
        distributed.broadcast(answer, src=0)
        return bool(answer)

    def micro_batches(self, rows: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
        """Yield as many micro-batches in every process, of the same kind at the same time.

        What is missing for that is filled with a row that nothing is trained on.
        """
        shares = [list(in_pieces(rows[rank :: self.count], size)) for rank in range(self.count)]
        for turn in range(max(map(len, shares))):
            taken = [share[turn] if turn < len(share) else [] for share in shares]
            filler = max((row for part in taken for row in part), key=lambda r: bool(r.digests))
            mine = list(taken[self.rank])
            if not any(row.digests for row in mine) and (filler.digests or not mine):
                mine.append(replace(filler, is_trained=filler.is_trained & False))
            yield mine

    def add_up(self, learning: Sequence[tuple[str, Any]], total: Any, num_halvings: int) -> int:
        """Add the losses of all processes, in place; gradients have been added on the way."""
        from torch import distributed

        distributed.all_reduce(total)
        return num_halvings

    def total(self, value: Any) -> Any:
        """Return a tensor added up over all processes."""
        return _added_up(value)

    def whole(self, tensor: Any) -> Any:
        """Return all of a tensor on the CPU of the first process; None in the others."""
        from torch.distributed.tensor import DTensor

        tensor = tensor.detach()
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return full.cpu().contiguous() if self.is_first else None

    def like(self, parameter: Any, whole: Any) -> Any:
        """Return this process's part of a whole tensor."""
        from torch.distributed.tensor import distribute_tensor

        there = whole.to(parameter.device)
        return distribute_tensor(
            there, parameter.device_mesh, parameter.placements, src_data_rank=None
        )


def _added_up(value: Any) -> Any:
    from torch import distributed

    total = value.clone()
    distributed.all_reduce(total)
    return total


def _blocks(module: Any) -> Iterator[Any]:
    """Yield the blocks of a model: the members of its lists, but of no list inside of those."""
    from torch.nn import ModuleList

    for child in module.children():
        if isinstance(child, ModuleList):
            yield from child
        else:
            yield from _blocks(child)


def _buckets(parameters: Sequence[Any]) -> Iterator[list[Any]]:
    bucket: list[Any] = []
    for parameter in parameters:
        bucket.append(parameter)
        if sum(p.numel() for p in bucket) >= BUCKET_ELEMENTS:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def _add_up(parameters: Sequence[Any]) -> None:
    """Add the gradients of all processes; one that has none adds nothing."""
    import torch
    from torch import distributed

    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
    distributed.all_reduce(flat)
    for parameter, piece in zip(
        parameters, flat.split([p.numel() for p in parameters]), strict=True
    ):
        parameter.grad.copy_(piece.view_as(parameter))
