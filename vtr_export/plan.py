"""Options -> a plan that can be carried out, or a refusal before anything begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vtr_runtime.errors import ConfigError, UsageError
from vtr_runtime.publish import check_output

if TYPE_CHECKING:
    from .model.config import ModelConfig

DEFAULT_OPSET = 18
TARGETS = ("onnx",)
LATER_TARGETS = ("trt", "trt-rtx", "openvino", "triton")


@dataclass(frozen=True)
class ExportPlan:
    """What to export, from where, to where. Exactly one of `checkpoint` and `open_clip` is given."""

    output: Path
    checkpoint: Path | None = None
    open_clip: str | None = None
    pretrained: str | None = None
    targets: tuple[str, ...] = ("onnx",)
    eval_data: str | None = None
    debug_outputs: bool = False
    overwrite: bool = False
    opset: int = DEFAULT_OPSET

    def check(self) -> None:
        """Raise UsageError for what cannot be honoured."""
        if (self.checkpoint is None) == (self.open_clip is None):
            raise UsageError("give either --ckpt best.pt (a trained model) or --open-clip NAME (stock CLIP)")
        if self.checkpoint is not None and self.pretrained is not None:
            raise UsageError("--pretrained goes with --open-clip: a checkpoint brings its own weights")
        if self.open_clip is not None and self.pretrained is None:
            raise UsageError(
                f"--open-clip {self.open_clip} needs --pretrained TAG_OR_FILE: it has no weights of its own"
            )
        _check_targets(self.targets)
        if self.checkpoint is not None and not self.checkpoint.is_file():
            raise UsageError(f"{self.checkpoint} does not exist; give the best.pt that vtr-train fit wrote")
        if self.eval_data is not None and not Path(self.eval_data).exists():
            raise UsageError(f"--eval-data {self.eval_data} does not exist; give a .jsonl file or its folder")
        check_output(self.output, overwrite=self.overwrite)

    @property
    def settings(self) -> dict[str, object]:
        """What the manifest keeps of the plan: no paths, they mean nothing elsewhere."""
        return {
            "source": "checkpoint" if self.checkpoint else "open_clip",
            "targets": list(self.targets),
            "debug_outputs": self.debug_outputs,
            "opset": self.opset,
        }


def check_model(config: ModelConfig) -> None:
    """Raise ConfigError for a model that is not a function of its inputs, and so has no graph."""
    kind = config.alignment.kind
    if config.alignment.random_in_evaluation:
        raise ConfigError(
            f"alignment '{kind}' cannot be exported: what it makes of a sentence is drawn at random (it is a control "
            "of the DITS paper); export a model trained with alignment 'none', 'dits' or 'mlp'"
        )


def _check_targets(targets: Sequence[str]) -> None:
    for target in targets:
        if target in LATER_TARGETS:
            raise UsageError(f"target '{target}' is not built yet in this version; use --target {' or '.join(TARGETS)}")
        if target not in TARGETS:
            raise UsageError(f"there is no target '{target}'; choose from: {', '.join(TARGETS)}")
