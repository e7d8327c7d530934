"""Options -> a plan that can be carried out, or a refusal before anything begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtr_runtime.engines.options import build_options, given_options
from vtr_runtime.errors import ConfigError, UsageError
from vtr_runtime.publish import check_output
from vtr_runtime.sampling import Sampling
from vtr_runtime.targets import GraphPlan, Target, find_target, plan_graphs

if TYPE_CHECKING:
    from vtr_runtime.engines.tensorrt_build import BuildOptions
    from vtr_runtime.precision import Precision

    from .model.config import ModelConfig


@dataclass(frozen=True)
class ExportPlan:
    """What to export, from where, to where. Exactly one of `checkpoint` and `open_clip` is given.

    `precision` and `opset` None mean what the targets usually have. `engine` holds the options of engines/options.py by
    name; `frames` and `sampling` are T and which frames of a checkpoint that does not say it."""

    output: Path
    checkpoint: Path | None = None
    open_clip: str | None = None
    pretrained: str | None = None
    frames: int = 12
    sampling: Sampling = "uniform"
    targets: tuple[str, ...] = ("onnx",)
    precision: Precision | None = None
    opset: int | None = None
    rerank: bool = False
    split_video: bool = False
    debug_outputs: bool = False
    islands: Path | None = None
    search_islands: bool = False
    calibration: str | None = None
    eval_data: str | None = None
    engine: dict[str, Any] = field(default_factory=dict)
    overwrite: bool = False

    @property
    def graphs(self) -> GraphPlan:
        """Precision and opset that all targets have in common. UsageError where they have none."""
        return plan_graphs(self.targets, self.precision, self.opset)

    @property
    def build_options(self) -> BuildOptions:
        return build_options(self.engine)

    def check(self) -> None:
        """Raise UsageError for what cannot be honoured."""
        from vtr_training.data.spec import parse_spec

        self._check_source()
        graphs = self.graphs
        _check_engine_options([find_target(name) for name in self.targets], given_options(self.engine))
        _ = self.build_options
        self._check_precision_options(graphs.graph_precision)
        for option, spec in (("--eval-data", self.eval_data), ("--calibration", self.calibration)):
            if spec is not None and not parse_spec(spec).path.exists():
                raise UsageError(f"{option} {spec} does not exist; give a data file, its folder, or NAME:DIR")
        check_output(self.output, overwrite=self.overwrite)

    def _check_source(self) -> None:
        if (self.checkpoint is None) == (self.open_clip is None):
            raise UsageError("give either --ckpt best.pt (a trained model) or --open-clip NAME (stock CLIP)")
        if self.checkpoint is not None and self.pretrained is not None:
            raise UsageError("--pretrained goes with --open-clip: a checkpoint brings its own weights")
        if self.open_clip is not None and self.pretrained is None:
            raise UsageError(
                f"--open-clip {self.open_clip} needs --pretrained TAG_OR_FILE: it has no weights of its own"
            )
        if self.checkpoint is not None and not self.checkpoint.is_file():
            raise UsageError(
                f"{self.checkpoint} does not exist; give the best.pt of vtr-train fit, or a CLIP4Clip checkpoint"
            )

    def _check_precision_options(self, written: Precision) -> None:
        if self.islands is not None and self.search_islands:
            raise UsageError("--islands gives the list that --search-islands would find; leave one of them out")
        lowered = written in ("fp16", "bf16")
        for option, given in (("--islands", self.islands is not None), ("--search-islands", self.search_islands)):
            if given and not lowered:
                raise UsageError(f"{option} is for graphs in fp16 or bf16, and these are {written}; leave it out")
        if self.islands is not None and not self.islands.is_file():
            raise UsageError(f"--islands {self.islands} does not exist; give the list that --search-islands wrote")
        if written == "int8" and self.eval_data is None:
            raise UsageError("--precision int8 is judged by the R@1 that it loses: give a data set with --eval-data")
        if self.calibration is not None and written != "int8" and not self.search_islands:
            raise UsageError("--calibration is for --precision int8 and --search-islands; leave it out")

    @property
    def settings(self) -> dict[str, object]:
        """What the manifest keeps of the plan: no paths, they mean nothing elsewhere."""
        graphs = self.graphs
        return {
            "source": "checkpoint" if self.checkpoint else "open_clip",
            "targets": list(self.targets),
            "precision": graphs.precision,
            "graph_precision": graphs.graph_precision,
            "opset": graphs.opset,
            "opset_reason": graphs.reason,
            "rerank": self.rerank,
            "split_video": self.split_video,
            "debug_outputs": self.debug_outputs,
            "engine": {
                name: value.name if isinstance(value, Path) else str(value)
                for name, value in self.engine.items()
                if name in given_options(self.engine)
            },
        }


def check_model(config: ModelConfig, plan: ExportPlan) -> None:
    """Raise ConfigError for a model that is no function of its inputs, and so has no graph, or that lacks a part."""
    kind = config.alignment.kind
    if config.alignment.random_in_evaluation:
        raise ConfigError(
            f"alignment '{kind}' cannot be exported: what it makes of a sentence is drawn at random (it is a control "
            "of the DITS paper); export a model trained with alignment 'none', 'dits' or 'mlp'"
        )
    if plan.rerank and config.rerank.kind == "none":
        raise ConfigError("--rerank asks for a second stage, and this model was trained without one; leave it out")


def _check_engine_options(targets: list[Target], given: list[str]) -> None:
    """An option must be honoured by one of the targets at least; the first says why it is not."""
    for option in given:
        if not any(option in target.options for target in targets):
            targets[0].check_options([option])
