"""The training loop, top to bottom."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from vtr_export.model.checkpoint import load_checkpoint, save_checkpoint
from vtr_export.model.retrieval import RetrievalModel
from vtr_export.model.stock import from_open_clip
from vtr_runtime.console import note, progress
from vtr_runtime.errors import ConfigError, UsageError, VtrError
from vtr_runtime.manifest import fingerprint
from vtr_runtime.publish import check_output, staged_file, storage_errors

from .data.batches import Batch, BatchPlan
from .data.feature_cache import cached_features
from .data.parts_of_speech import choose_tagger
from .data.split import Split, load_split
from .devices import choose_device, device_name, peak_memory
from .distributed import AgreedError, World
from .ema import AveragedWeights
from .embed import embed_split, make_tokenizer
from .evaluate import evaluate_embeddings
from .freeze import count_parameters, set_training, take_over
from .gradcache import refuse_batch_statistics
from .layers import checkpoint_blocks, compile_towers, freeze_layers
from .objective import Objective
from .optim import build_optimizer, rate_factor, set_rate
from .precision import autocast, build_scaler
from .recipe import ModelSettings, Recipe, changed_keys
from .run_log import NoLog, RunLog
from .run_state import Progress, Stateful, load_state, save_state, seed_everything
from .second_stage import evaluate_second_stage
from .step import train_step

LOG_EVERY = 10  # steps
OUT_OF_MEMORY = "the GPU's memory is full; set batches.chunk lower, then checkpointing=true (docs/training.md)"


@dataclass(frozen=True)
class FitResult:
    run: Path
    best: Path
    best_step: int
    best_value: float
    metric: str
    steps: int
    seconds_per_step: float
    peak_memory_bytes: int  # of the GPU, or of the whole process
    device: str
    skipped: int  # unreadable clips
    parameters: dict[str, Any]  # see freeze.count_parameters

    def to_json(self) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Path) else value for name, value in vars(self).items()}


def fit(recipe: Recipe, run: Path, *, resume: bool = False, world: World | None = None) -> FitResult:
    """Train into the folder `run`.

    On SIGINT or SIGTERM the step is finished, last.pt is saved and KeyboardInterrupt raised. `resume` goes on from
    last.pt; on the CPU the result is bit for bit that of a run that was never stopped. VtrError names the step and the
    clips of a loss that is not finite; best.pt and last.pt stay as they were. With a `world` of several ranks all
    return the same; the first alone writes."""
    world = world or World(choose_device(recipe.device))
    world.together(lambda: check_run(run, recipe, resume=resume))
    world.refuse_differences({"recipe": fingerprint(recipe.model_dump(mode="json"))})
    seed_everything(recipe.seed)
    model = world.in_turn(lambda: build_model(recipe.model))
    model = model.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = Objective(recipe.loss, model.config).to(world.device)
    averaged = None if recipe.optim.ema is None else AveragedWeights(model, recipe.optim.ema)
    prepare_model(model, recipe, ranks=world.size)
    optimizer = build_optimizer(model, objective, recipe.optim)
    scaler = build_scaler(recipe.precision, world.device)
    parts: dict[str, Stateful] = {"model": model, "objective": objective, "optimizer": optimizer, "scaler": scaler}
    if averaged is not None:
        parts["averaged"] = averaged
    train, val = world.in_turn(lambda: load_splits(recipe, model))
    world.refuse_differences({"training data": train.fingerprint, "validation data": val.fingerprint})
    plan = plan_batches(recipe, train)
    world.share(recipe.batches.size)  # or it cannot be shared
    if resume:
        state = world.together(lambda: load_state(run / "last.pt", parts))
        world.together(lambda: refuse_other_data(state, train, recipe, run))
    else:
        state = Progress(data=train.fingerprint)
        world.by_first(lambda: begin_run(run, recipe))
    for module in (model, objective):
        world.copy_from_first(module)

    def save() -> None:
        world.by_first(lambda: save_state(run / "last.pt", parts, state))

    pretraining_ends = round(recipe.loss.gap.until * recipe.steps)
    with (
        closing(RunLog(run, step=state.step) if world.is_first else NoLog()) as log,
        interruptible(insistent=world.size == 1) as interrupted,
        progress("training", recipe.steps) as bar,
    ):
        bar.advance(state.step)
        while state.step < recipe.steps and not gives_up(state, recipe):
            began = time.perf_counter()
            rate = rate_factor(state.step, recipe.steps, recipe.optim.warmup)
            set_rate(optimizer, rate)
            batch = plan.batch(state.step)
            try:
                values = train_step(
                    model,
                    objective,
                    optimizer,
                    train,
                    batch,
                    recipe,
                    step=state.step,
                    pretraining=state.step < pretraining_ends,
                    world=world,
                    scaler=scaler,
                )
            except AgreedError as error:
                raise AgreedError(f"step {state.step + 1}: {error}; its batch: {_clips(train, batch)}") from error
            except torch.OutOfMemoryError as error:
                raise VtrError(f"step {state.step + 1}: {OUT_OF_MEMORY}") from error
            state.step += 1
            state.seconds += time.perf_counter() - began
            if state.step % LOG_EVERY == 0:
                log.add(state.step, "train", **values, rate=rate, seconds=state.seconds)
            if averaged is not None:
                averaged.update(model)
            if state.step % recipe.validation.every == 0 or state.step == recipe.steps:
                judged = model if averaged is None else averaged.model
                state.best, state.best_step = world.by_first(partial(validate, judged, val, recipe, state, log, run))
                save()
            elif state.step % recipe.checkpoint_every == 0:
                save()
            bar.advance(note=f"loss {values['loss']:.3f}" + (f", best {state.best:.3f}" if state.best_step else ""))
            if world.any(interrupted()):
                save()
                note(f"stopped after step {state.step}; go on with the same command and --resume")
                raise KeyboardInterrupt
    result = FitResult(
        run=run,
        best=run / "best.pt",
        best_step=state.best_step,
        best_value=state.best,
        metric=recipe.validation.metric,
        steps=state.step,
        seconds_per_step=state.seconds / state.step,
        peak_memory_bytes=peak_memory(world.device),
        device=device_name(world.device) + (f", {world.size} processes" if world.size > 1 else ""),
        skipped=len(train.frames.unreadable) + len(val.frames.unreadable),
        parameters=count_parameters(model, objective),
    )
    world.by_first(lambda: write_summary(run, result))
    return result


def build_model(settings: ModelSettings) -> RetrievalModel:
    """A model to train: a CLIP backbone, pretrained, from a checkpoint or of random weights, with new heads."""
    model = from_open_clip(
        settings.backbone,
        pretrained=settings.pretrained,
        temporal=settings.temporal,
        alignment=settings.alignment,
        rerank=settings.rerank,
        frames=settings.frames,
        sampling=settings.sampling,
    )
    if settings.start_from is not None:
        taken = take_over(model, load_checkpoint(settings.start_from).model)
        note(f"{settings.start_from} gives: {', '.join(taken)}")
    return model


def prepare_model(model: RetrievalModel, recipe: Recipe, *, ranks: int = 1) -> None:
    """What the recipe says of how the model is trained: what keeps its weights, what is recomputed, what compiled."""
    set_training(model, recipe.optim.freeze)
    if recipe.optim.freeze_layers is not None:
        freeze_layers(model, recipe.optim.freeze_layers)
    refuse_batch_statistics(model, recipe, ranks=ranks)
    if recipe.checkpointing:
        checkpoint_blocks(model)
    if recipe.compile:
        compile_towers(model)


def load_splits(recipe: Recipe, model: RetrievalModel) -> tuple[Split, Split]:
    """What is trained on, and what chooses best.pt."""
    data, tokenizer = recipe.data, make_tokenizer(model.config)
    tagger = choose_tagger(data.tagger) if model.config.rerank.weighs_words else None
    train, val = (
        load_split(
            data.spec,
            name,
            model.config.frames,
            tokenizer,
            cache=data.cache,
            tagger=tagger,
            seconds=data.decode_seconds,
        )
        for name in (data.train, data.val)
    )
    train.refuse_without_negatives()
    if "group_r1" in recipe.validation.metric and not any(clip.group for clip in val.frames.clips):
        metric = recipe.validation.metric
        raise ConfigError(f"validation.metric {metric!r} needs groups and split {data.val!r} has none; set it to rsum")
    if "image" in recipe.optim.freeze:
        train, val = (
            replace(split, features=cached_features(model.video, split.frames, batch=recipe.validation.batch))
            for split in (train, val)
        )
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
    changed = sorted(changed_keys(before, recipe.model_dump(mode="json")))
    if changed:
        raise ConfigError(f"{run} was begun with another recipe ({', '.join(changed)}); resume with the same one")


def gives_up(state: Progress, recipe: Recipe) -> bool:
    """Whether as many validations as there is patience for have brought nothing better."""
    patience = recipe.validation.patience
    return patience is not None and state.step - state.best_step >= patience * recipe.validation.every


def refuse_other_data(state: Progress, train: Split, recipe: Recipe, run: Path) -> None:
    if state.data != train.fingerprint:
        raise ConfigError(f"{recipe.data.spec} is not what {run} was begun with; start again with another -o")


def begin_run(run: Path, recipe: Recipe) -> None:
    """Make the folder, once everything that the run needs is at hand."""
    with storage_errors(run):
        run.mkdir()
        text = json.dumps(recipe.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        (run / "recipe.json").write_text(text, encoding="utf-8")


def _clips(split: Split, batch: Batch) -> str:
    """The first clips of a batch, by name."""
    names = [str(split.frames.clips[row].video) for row in batch.clips[:3]]
    return f"{', '.join(names)} and {len(batch.clips) - len(names)} more"


@contextmanager
def interruptible(*, insistent: bool = True) -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag, so that a step is finished.

    `insistent`: a second SIGINT interrupts at once. Below torchrun, which passes on what the terminal has sent already,
    it must not."""
    asked = False

    def ask(number: int, _: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if insistent and number == signal.SIGINT:
            signal.signal(number, before[number])

    before = {int(number): signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def validate(
    model: RetrievalModel, split: Split, recipe: Recipe, state: Progress, log: RunLog, run: Path
) -> tuple[float, int]:
    """Embed and rank a split, and keep the model in best.pt if it is the best so far; returns the best value so far and
    its step."""
    top_k = recipe.validation.top_k
    with autocast(recipe.precision, model.logit_scale.device):
        embedded = embed_split(model, split, batch=recipe.validation.batch, tokens=top_k is not None)
    found = evaluate_embeddings(embedded.clips, embedded.video, embedded.text, embedded.owners)
    chosen = found if top_k is None else evaluate_second_stage(model, embedded, top_k)
    value = chosen.value(recipe.validation.metric)
    second = {} if top_k is None else {f"second_{name}": number for name, number in chosen.summary().items()}
    log.add(state.step, "val", value=value, **found.summary(), **second)
    if not value > state.best:
        return state.best, state.best_step
    training = {"recipe": recipe.model_dump(mode="json"), "step": state.step, "validation": chosen.to_json()}
    save_checkpoint(run / "best.pt", model, training=training)
    return value, state.step


def write_summary(run: Path, result: FitResult) -> None:
    """summary.json: what a finished run came to, for `compare` and the report."""
    validation = load_checkpoint(run / "best.pt").training["validation"]
    text = json.dumps({**result.to_json(), "validation": validation}, indent=1, ensure_ascii=False)
    with staged_file(run / "summary.json") as staged:
        staged.write_text(text + "\n", encoding="utf-8")
