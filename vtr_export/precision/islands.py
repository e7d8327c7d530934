"""Which parts of a graph stay in fp32: rules by operator and by PyTorch module, and the file that stores them.

video.backbone.transformer.resblocks.3      this module and all inside it; * and ? as in a shell
op:Softmax                                  this operator anywhere
op:MatMul@*.backbone                        this operator, directly in such a module (not in one inside it)
op:*@text                                   whatever stands directly in this module"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from vtr_runtime.errors import UsageError

# A ResNet's first convolutions, by the names they have once the exporter has joined each with its BatchNorm. They see
# normalised pixels, whose rounding is alike all over an even picture, and nothing averages it out. A ViT has none: its
# patches see whole numbers.
STEM = ("video.backbone.bn1", "video.backbone.bn2", "video.backbone.bn3")
# What stays in fp32 where bf16 is a compile hint, whose engine keeps LayerNorm, sums and softmax as it likes.
HINT_RULES = STEM
DEFAULT_RULES = (
    # Their sums of squares or of many terms leave fp16's range, or lose the small terms in bf16.
    "op:LayerNormalization",
    "op:Softmax",
    "op:ReduceL2",
    "op:ReduceSum",
    "op:ReduceMean",
    # Cubes and exponentials leave fp16's range; see WHOLE_MODULE.
    "op:Exp",
    "op:Log",
    "op:Pow",
    # Directly in a tower: the pixel normalisation, the sampler's running state (its matrix products stand in modules of
    # their own), the last L2 norm. Directly in the second stage: its choice of best frames, which is discontinuous.
    "op:*@video",
    "op:*@text",
    "op:*@rerank",
    *STEM,
    # The final projection: its rounding is not averaged out by anything behind it.
    "op:MatMul@*.backbone",
    "op:Gemm@*.backbone",
    "*.backbone.attnpool.c_proj",
)
# A rule for one of these takes the module's other operators along: x^3 in fp32 would overflow on its way out of it.
WHOLE_MODULE = frozenset({"Exp", "Log", "Pow"})


@dataclass(frozen=True)
class Islands:
    """Rules, the first that matches names the reason. They are what the manifest's `islands` holds."""

    rules: tuple[str, ...] = DEFAULT_RULES

    def __post_init__(self) -> None:
        for rule in self.rules:
            operator, at, module = rule.removeprefix("op:").partition("@")
            if not operator or (at and not module) or (at and not rule.startswith("op:")) or rule != rule.strip():
                raise UsageError(
                    f"{rule!r} is no island: give a module (video.backbone.ln_pre), op:OPERATOR or op:OPERATOR@MODULE"
                )

    def rule_for(self, operator: str, module: str) -> str | None:
        """The rule that keeps this operator in fp32, or None."""
        return next((rule for rule in self.rules if _matches(rule, operator, module)), None)

    def also(self, modules: Iterable[str]) -> Islands:
        """With further rules, each once."""
        return Islands(tuple(dict.fromkeys((*self.rules, *modules))))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(list(self.rules), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Islands:
        """Read a JSON list of rules. UsageError where it is none."""
        try:
            rules = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{path} cannot be read as a list of islands ({error}); give a JSON list of rules"
            ) from error
        if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
            raise UsageError(f"{path} is no list of islands; give a JSON list of rules such as {DEFAULT_RULES[0]!r}")
        return cls(tuple(rules))


def _matches(rule: str, operator: str, module: str) -> bool:
    if not rule.startswith("op:"):
        return fnmatchcase(module, rule) or fnmatchcase(module, f"{rule}.*")
    kind, _, place = rule.removeprefix("op:").partition("@")
    return fnmatchcase(operator, kind) and (not place or fnmatchcase(module, place))
