"""The training loop, top to bottom."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from vtr_export.model.checkpoint import save_checkpoint
from vtr_export.model.config import ModelConfig
from vtr_export.model.retrieval import RetrievalModel
from vtr_export.model.stock import from_open_clip
from vtr_runtime.console import note, progress
from vtr_runtime.errors import ConfigError, UsageError
from vtr_runtime.publish import check_output, storage_errors

from .data.batches import BatchPlan
from .data.split import Split, load_split
from .embed import embed_ids, embed_videos, make_tokenizer, spans
from .evaluate import evaluate_embeddings
from .optim import build_optimizer, rate_factor, set_rate
from .recipe import ModelSettings, Recipe
from .run_log import RunLog
from .run_state import Progress, load_state, save_state, seed_everything
from .step import train_step

LOG_EVERY = 10  # steps


@dataclass(frozen=True)
class FitResult:
    run: Path
    best: Path
    best_step: int
    best_value: float
    metric: str
    steps: int
    seconds_per_step: float
    skipped: int  # unreadable clips

    def to_json(self) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Path) else value for name, value in vars(self).items()}


def fit(recipe: Recipe, run: Path, *, resume: bool = False) -> FitResult:
    """Train into the folder `run`.

    On SIGINT the step is finished, last.pt is saved and KeyboardInterrupt raised. `resume` goes on from last.pt; on the
    CPU the result is bit for bit that of a run that was never stopped."""
    check_run(run, recipe, resume=resume)
    device = choose_device(recipe.device)
    seed_everything(recipe.seed)
    model = build_model(recipe.model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(model, recipe.optim)
    train, val = load_splits(recipe, model.config)
    plan = plan_batches(recipe, train)
    state = load_state(run / "last.pt", model, optimizer) if resume else begin_run(run, recipe, train)
    if state.data != train.fingerprint:
        raise ConfigError(f"{recipe.data.spec} is not what {run} was begun with; start again with another -o")
    model.train()
    with (
        closing(RunLog(run, step=state.step)) as log,
        interruptible() as interrupted,
        progress("training", recipe.steps) as bar,
    ):
        bar.advance(state.step)
        while state.step < recipe.steps:
            began = time.perf_counter()
            rate = rate_factor(state.step, recipe.steps, recipe.optim.warmup)
            set_rate(optimizer, rate)
            loss, norm = train_step(model, optimizer, train, plan.batch(state.step), recipe, device)
            state.step += 1
            state.seconds += time.perf_counter() - began
            if state.step % LOG_EVERY == 0:
                log.add(state.step, "train", loss=loss, grad_norm=norm, rate=rate, seconds=state.seconds)
            if state.step % recipe.validation.every == 0 or state.step == recipe.steps:
                validate(model, val, recipe, device, state, log, run)
                save_state(run / "last.pt", model, optimizer, state)
            bar.advance(note=f"loss {loss:.3f}" + (f", best {state.best:.3f}" if state.best_step else ""))
            if interrupted():
                save_state(run / "last.pt", model, optimizer, state)
                note(f"stopped after step {state.step}; go on with the same command and --resume")
                raise KeyboardInterrupt
    return FitResult(
        run=run,
        best=run / "best.pt",
        best_step=state.best_step,
        best_value=state.best,
        metric=recipe.validation.metric,
        steps=state.step,
        seconds_per_step=state.seconds / state.step,
        skipped=len(train.frames.unreadable) + len(val.frames.unreadable),
    )


def build_model(settings: ModelSettings) -> RetrievalModel:
    """A model to train: a CLIP backbone, pretrained or of random weights, with new heads."""
    return from_open_clip(
        settings.backbone,
        pretrained=settings.pretrained,
        temporal=settings.temporal,
        alignment=settings.alignment,
        frames=settings.frames,
    )


def load_splits(recipe: Recipe, config: ModelConfig) -> tuple[Split, Split]:
    """What is trained on, and what chooses best.pt."""
    data, tokenizer = recipe.data, make_tokenizer(config)
    train, val = (
        load_split(data.spec, name, config.frames, tokenizer, cache=data.cache) for name in (data.train, data.val)
    )
    if "group_r1" in recipe.validation.metric and not any(clip.group for clip in val.frames.clips):
        metric = recipe.validation.metric
        raise ConfigError(f"validation.metric {metric!r} needs groups and split {data.val!r} has none; set it to rsum")
    return train, val


def plan_batches(recipe: Recipe, train: Split) -> BatchPlan:
    share = recipe.batches.groups_from
    groups_from = None if share is None else round(share * recipe.steps)
    return BatchPlan(train.frames.clips, size=recipe.batches.size, seed=recipe.seed, groups_from=groups_from)


def check_run(run: Path, recipe: Recipe, *, resume: bool) -> None:
    """Refuse a folder that is there already; to resume, one that holds no run of this recipe."""
    if not resume:
        check_output(run)
        return
    if not (run / "last.pt").is_file():
        raise UsageError(f"{run} holds no last.pt to resume from; remove it and run the command without --resume")
    before = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    changed = sorted(_changed_keys(before, recipe.model_dump(mode="json")))
    if changed:
        raise ConfigError(f"{run} was begun with another recipe ({', '.join(changed)}); resume with the same one")


def begin_run(run: Path, recipe: Recipe, train: Split) -> Progress:
    """Make the folder, once everything that the run needs is at hand."""
    with storage_errors(run):
        run.mkdir()
        text = json.dumps(recipe.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        (run / "recipe.json").write_text(text, encoding="utf-8")
    return Progress(data=train.fingerprint)


def _changed_keys(before: Any, now: Any, key: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            yield from _changed_keys(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif before != now:
        yield key


def choose_device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda and torch sees none; set device to cpu, or to auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT into a flag, so that a step is finished; a second one interrupts at once."""
    asked = False

    def ask(number: int, _: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def validate(
    model: RetrievalModel, split: Split, recipe: Recipe, device: torch.device, state: Progress, log: RunLog, run: Path
) -> None:
    """Embed and rank a split, and keep the model in best.pt if it is the best so far."""
    frames, size = split.frames, recipe.validation.batch
    batches = ((frames.pixels[rows], frames.mask[rows]) for rows in spans(len(frames.clips), size))
    video, text = embed_videos(model, batches, device), embed_ids(model, split.ids, size, device)
    found = evaluate_embeddings(frames.clips, video, text, split.owners)
    value = found.value(recipe.validation.metric)
    log.add(state.step, "val", value=value, **found.summary())
    if value > state.best:
        state.best, state.best_step = value, state.step
        training = {"recipe": recipe.model_dump(mode="json"), "step": state.step, "validation": found.to_json()}
        save_checkpoint(run / "best.pt", model, training=training)
