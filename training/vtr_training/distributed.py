"""Several processes (ranks) that train one model, each on its share of every batch; started by torchrun.

Features are gathered, so that every rank has the loss of the whole batch. A rank's gradient of that loss with respect
to its own features is the true one, so nothing has to be sent back: the weights' gradients are summed over the ranks
once a step. What the losses train themselves (logit scale, second stage, TPM's predictors) would be counted once for
each rank, and is divided by their number before the sum.

Ranks meet in the order of the program. Whatever one rank alone finds wrong in `together`, `in_turn` and `by_first` is
raised on all; a rank that fails elsewhere ends, and torchrun ends the others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vtr_runtime.console import note
from vtr_runtime.errors import ConfigError, DataError, VtrError

from .devices import choose_device

T = TypeVar("T")

STEP_LIMIT = timedelta(minutes=10)
"""That a rank may wait for another within a step: all begin one together."""

WORK_LIMIT = timedelta(hours=12)
"""That the others may wait while one decodes or validates."""

BUCKET = 2**24
"""Numbers that are summed over the ranks at once."""


class AgreedError(VtrError):
    """An error that every rank has raised, so that one of them may say it."""

    def __init__(self, message: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class LostRankError(VtrError):
    """Another rank is gone, or did not answer in time."""


@dataclass(frozen=True)
class World:
    """This rank among all; alone, every method gives back what it was given."""

    device: torch.device
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    patient: Any = None  # the group for what takes one rank long; on the CPU, where objects are

    @property
    def is_first(self) -> bool:
        """The rank that writes, and speaks."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """This rank's rows of a batch. ConfigError where they are not as many for each."""
        if rows % self.size:
            raise ConfigError(
                f"batches.size {rows} cannot be shared by {self.size} processes; make it a multiple of {self.size}"
            )
        count = rows // self.size
        return slice(self.rank * count, (self.rank + 1) * count)

    def gather(self, own: Tensor) -> Tensor:
        """[B / size, ...] of each rank -> [B, ...]: a gradient reaches the own rows, the others' are constants."""
        if self.size == 1:
            return own
        parts = [torch.empty_like(own) for _ in range(self.size)]
        with _meeting():
            dist.all_gather(parts, own.detach().contiguous())
        parts[self.rank] = own
        return torch.cat(parts)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients that are there over all ranks, in place; the same ones are there on each."""
        if self.size == 1:
            return
        for bucket in _buckets([value.grad for value in parameters if value.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            with _meeting():
                dist.all_reduce(flat)
            for gradient, summed in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def divide_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients that are there by the number of ranks, in place."""
        if self.size > 1:
            for value in parameters:
                if value.grad is not None:
                    value.grad /= self.size

    def any(self, flag: bool) -> bool:
        """Whether it is so on any rank."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag), device=self.device)
        with _meeting():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def copy_from_first(self, module: nn.Module) -> None:
        """Give every rank the weights and buffers of the first."""
        if self.size > 1:
            for value in module.state_dict().values():
                with _meeting():
                    dist.broadcast(value, 0)

    def together(self, work: Callable[[], T]) -> T:
        """Do the same on all ranks; a VtrError on one is an AgreedError on all."""
        if self.size == 1:
            return work()
        failure: VtrError | None = None
        try:
            made = work()
        except VtrError as error:
            failure = error
        self._agree(failure)
        return made

    def in_turn(self, work: Callable[[], T]) -> T:
        """Do it on the first rank, then on the first of every machine, then on the others: one makes a cache, which
        those after it find."""
        if self.size == 1:
            return work()
        made: list[T] = []
        mine = 0 if self.is_first else 1 if self.local_rank == 0 else 2
        for turn in range(3):
            self.together((lambda: made.append(work())) if turn == mine else (lambda: None))
        return made[0]

    def by_first(self, work: Callable[[], T]) -> T:
        """What the first rank makes of it, on all."""
        if self.size == 1:
            return work()
        made: list[T | None] = [None]

        def do() -> None:
            if self.is_first:
                made[0] = work()

        self.together(do)
        with _meeting():
            dist.broadcast_object_list(made, 0, group=self.patient)
        return made[0]  # type: ignore[return-value]

    def refuse_differences(self, own: Mapping[str, str]) -> None:
        """DataError on every rank where they do not all have the same, by name of what differs."""
        for name, value in own.items():
            values = self._from_all(value)
            other = [rank for rank, theirs in enumerate(values) if theirs != values[0]]
            if other:
                ranks = ", ".join(map(str, other))
                raise AgreedError(
                    f"rank 0 and rank {ranks} do not have the same {name}; give all processes the same files and "
                    "the same command",
                    DataError.exit_status,
                )

    def meet(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            with _meeting():
                dist.barrier(group=self.patient)

    def _agree(self, failure: VtrError | None) -> None:
        found = self._from_all(None if failure is None else (str(failure), failure.exit_status))
        said = [(rank, *one) for rank, one in enumerate(found) if one is not None]
        if not said:
            return
        rank, sentence, status = said[0]
        everywhere = len(said) == self.size and len({one[1] for one in said}) == 1
        raise AgreedError(sentence if everywhere else f"rank {rank}: {sentence}", status) from failure

    def _from_all(self, value: Any) -> list[Any]:
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with _meeting():
            dist.all_gather_object(found, value, group=self.patient)
        return found


ALONE = World(torch.device("cpu"))


@contextlib.contextmanager
def join_world(device: str) -> Iterator[World]:
    """This process among those that torchrun started; without torchrun it is alone.

    `device` is the recipe's; on CUDA a rank takes the GPU of its number on its machine, and NCCL speaks for it, on the
    CPU Gloo. Ranks but the first are silent inside. ConfigError where a machine has fewer GPUs than ranks."""
    place = choose_device(device)
    rank, size, local = (int(os.environ.get(name, default)) for name, default in ENVIRONMENT)
    if size == 1:
        yield World(place)
        return
    if place.type == "cuda":
        count = torch.cuda.device_count()
        if local >= count:
            raise ConfigError(f"{local + 1} processes want a GPU and there are {count}; set --nproc-per-node={count}")
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    with _meeting():
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=STEP_LIMIT)
        patient = dist.new_group(backend="gloo", timeout=WORK_LIMIT)
    try:
        with contextlib.nullcontext() if rank == 0 else _silence():
            yield World(place, rank, size, local, patient)
    finally:
        dist.destroy_process_group()


ENVIRONMENT = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))


@contextlib.contextmanager
def said_once(world: World) -> Iterator[None]:
    """What all ranks end with is said by the first, before torchrun, once any has ended, ends the others."""
    try:
        yield
    except (AgreedError, KeyboardInterrupt) as error:
        if world.size == 1:
            raise
        status = error.exit_status if isinstance(error, AgreedError) else 130
        if world.is_first:
            note(f"error: {error}" if isinstance(error, AgreedError) else "interrupted")
        with contextlib.suppress(LostRankError):
            world.meet()
        raise SystemExit(status) from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):  # noqa: PTH123
        yield


@contextlib.contextmanager
def _meeting() -> Iterator[None]:
    """Turn the failure of a collective into one sentence."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise LostRankError(
            f"another process is gone or did not answer ({reason}); what it said stands above; go on with --resume"
        ) from error


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Consecutive gradients of one type, BUCKET numbers or a single tensor at a time."""
    bucket: list[Tensor] = []
    count = 0
    for gradient in gradients:
        if bucket and (count + gradient.numel() > BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, count = [], 0
        bucket.append(gradient)
        count += gradient.numel()
    if bucket:
        yield bucket
