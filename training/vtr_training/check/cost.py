"""How long a step takes and what memory it needs: a few steps of the recipe's model are run on this machine, with
random weights and pictures and batches as large as there is time for, and the rest is extrapolated.

A step's time and its activations are straight lines in the number of clips of the batch (the similarities of a batch
grow with its square, and are too few to be seen)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtr_export.model.retrieval import RetrievalModel

from ..data.batches import Batch
from ..data.clip import Clip
from ..data.frame_cache import CachedFrames
from ..data.split import Split, caption_rows
from ..devices import choose_device, device_name, peak_memory
from ..embed import make_tokenizer
from ..layers import blocks_of
from ..loop import build_model, prepare_model
from ..objective import Objective
from ..optim import build_optimizer
from ..recipe import Recipe
from ..step import train_step

SMALLEST = 2
BUDGET = 30.0  # seconds of measuring, about: no batch is begun that would take the rest
REPEATS = 2  # steps of each size; the fastest counts


@dataclass(frozen=True)
class Cost:
    """`measured`: batch size -> seconds of a step, on one process. Bytes are an estimate: weights (averaged ones too),
    gradients and AdamW's moments of what is trained, and what autograd keeps for the way back of `batches.chunk` clips
    at a time; libraries' work space comes on top."""

    device: str
    batch: int
    measured: dict[int, float]
    step_seconds: float
    weight_bytes: int
    state_bytes: int  # gradients and moments
    activation_bytes: int
    peak_bytes: int  # most that was held up to the largest measured batch: of the GPU, or by this process

    @property
    def extrapolated(self) -> bool:
        return self.batch not in self.measured

    @property
    def memory_bytes(self) -> int:
        return self.weight_bytes + self.state_bytes + self.activation_bytes

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "extrapolated": self.extrapolated, "memory_bytes": self.memory_bytes}


def measure_cost(recipe: Recipe, captions: Sequence[str], *, budget: float = BUDGET) -> Cost:
    """Run steps of growing batches within `budget` seconds. VtrError where a step cannot be run at all.

    `captions` are some of the training split's, for their lengths."""
    settings = recipe.model.model_copy(update={"pretrained": None, "start_from": None})
    device = choose_device(recipe.device)
    model = build_model(settings).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = Objective(recipe.loss, model.config).to(device)
    prepare_model(model, recipe)
    optimizer = build_optimizer(model, objective, recipe.optim)
    at_once = min(recipe.batches.chunk or recipe.batches.size, recipe.batches.size)
    times: dict[int, float] = {}
    kept: dict[int, int] = {}

    def step(size: int) -> float:
        split = _made_up(recipe, model, captions, size)
        batch = Batch(np.arange(size), np.zeros(size, np.int64))
        _wait(device)
        began = time.perf_counter()
        train_step(model, objective, optimizer, split, batch, recipe)
        _wait(device)
        return time.perf_counter() - began

    began = time.perf_counter()
    for size in _sizes(recipe.batches.size, at_once):
        if len(times) > 1 and _line(times, size) * (REPEATS + 1) > budget - (time.perf_counter() - began):
            break
        with _counting_saved(model if recipe.checkpointing else None) as saved:
            step(size)  # also warms up
        if size <= at_once:
            kept[size] = saved[0]
        times[size] = min(step(size) for _ in range(REPEATS))
    copies = 1 if recipe.optim.ema is None else 2
    trained = [value for group in optimizer.param_groups for value in group["params"]]
    return Cost(
        device=device_name(device),
        batch=recipe.batches.size,
        measured=times,
        step_seconds=_line(times, recipe.batches.size),
        weight_bytes=copies * sum(value.numel() * value.element_size() for value in model.parameters()),
        state_bytes=3 * sum(value.numel() * value.element_size() for value in trained),
        activation_bytes=round(_line(kept, at_once)),
        peak_bytes=peak_memory(device),
    )


def _sizes(full: int, chunk: int) -> list[int]:
    """1 where a chunk is no more; 2, 4, 8 ..., the chunk and the full batch."""
    size = min(SMALLEST, full, chunk)
    found = {chunk, full}
    while size < full:
        found.add(size)
        size *= 2
    return sorted(found)


def _line(points: dict[int, float] | dict[int, int], at: int) -> float:
    """The value at `at`: measured, or on the straight line through the two largest points; never below the last."""
    if at in points:
        return float(points[at])
    if len(points) == 1:
        [(size, value)] = points.items()
        return value * at / size
    (x0, y0), (x1, y1) = sorted(points.items())[-2:]
    return max(float(y1), y1 + (y1 - y0) / (x1 - x0) * (at - x1))


def _made_up(recipe: Recipe, model: RetrievalModel, captions: Sequence[str], size: int) -> Split:
    """Random pictures, or features where the image tower is frozen, and captions of the usual length."""
    spec, random = model.config.frames, np.random.default_rng(0)
    said = [captions[i % len(captions)] for i in range(size)]
    clips = tuple(Clip(Path(f"clip{i}"), (text,), "train") for i, text in enumerate(said))
    mask = np.ones((size, spec.count), np.bool_)
    features = None
    pixels = np.zeros((0, spec.count, spec.size, spec.size, 3), np.uint8)
    if "image" in recipe.optim.freeze:
        features = random.standard_normal((size, spec.count, model.video.width)).astype(np.float32)
    else:
        pixels = random.integers(0, 256, (size, *pixels.shape[1:]), np.uint8)
    texts, owners = caption_rows(clips)
    ids = make_tokenizer(model.config).encode(texts)
    return Split(CachedFrames(clips, pixels, mask, (), Path()), ids, owners, features=features)


@contextmanager
def _counting_saved(checkpointed: RetrievalModel | None) -> Iterator[list[int]]:
    """The bytes that autograd keeps inside, each storage once and parameters not counted.

    Of a model with checkpointed blocks the blocks' inputs are counted beside: autograd itself does not see them."""
    total, seen = [0], set()

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if not isinstance(value, torch.nn.Parameter) and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total[0] += storage.nbytes()
        return value

    def keep_input(_: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            keep(given[0])

    blocks = [] if checkpointed is None else blocks_of(checkpointed)
    hooks = [block.register_forward_pre_hook(keep_input) for block in blocks]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        yield total
    for hook in hooks:
        hook.remove()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
