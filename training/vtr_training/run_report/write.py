"""`vtr-train report`: collect a run's numbers, embed a split once, draw, write one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

import torch

from vtr_export.model.checkpoint import load_checkpoint
from vtr_export.model.config import ModelConfig
from vtr_runtime.publish import check_output, staged_file

from ..data.split import Split, load_split
from ..embed import make_tokenizer
from . import sections
from .embeddings import embed_before_after
from .gap import GapFigures
from .page import Page, render
from .run_folder import Run, read_run


@dataclass(frozen=True)
class Written:
    path: Path
    bytes: int
    split: str
    gap: GapFigures


def write_report(
    folder: Path,
    *,
    data: str | PurePath | None = None,
    split: str | None = None,
    output: Path | None = None,
    overwrite: bool = False,
) -> Written:
    """Write the report of the finished run in `folder`; `data` and `split` default to what it was validated on.

    DataError for a folder that is no finished run, OutputExistsError unless `overwrite`."""
    path = output or folder / "report.html"
    run = read_run(folder)
    check_output(path, overwrite=overwrite)
    chosen = split or run.recipe["data"]["val"]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_checkpoint(folder / "best.pt").model.to(device)
    shown = _load(run, model.config, data, chosen)
    embedded = embed_before_after(model, shown)
    figures = embedded.gap
    page = Page(
        title=f"Run {run.folder.resolve().name}",
        lead=sections.lead(run),
        sections=(
            sections.results(run),
            sections.curves(run),
            sections.alignment(embedded, figures, model.config, chosen),
            *sections.mistakes(embedded, shown, chosen),
        ),
    )
    content = render(page)
    with staged_file(path) as staged:
        staged.write_bytes(content)
    return Written(path, len(content), chosen, figures)


def _load(run: Run, config: ModelConfig, data: str | PurePath | None, split: str) -> Split:
    settings = run.recipe["data"]
    spec = data or str(settings["spec"])
    cache = Path(settings["cache"]) if settings.get("cache") and data is None else None
    return load_split(spec, split, config.frames, make_tokenizer(config), cache=cache)
