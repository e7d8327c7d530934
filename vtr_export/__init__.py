"""Train, export and run text-video retrieval: the exporter.

>>> import vtr_export
>>> vtr_export.export(vtr_export.ExportPlan(checkpoint=Path("best.pt"), output=Path("bundle")))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporter import ExportResult, export
    from .plan import ExportPlan

__version__ = "0.1.0"
__all__ = ["ExportPlan", "ExportResult", "export"]

# Resolved on first use: the exporter needs torch and onnx, `--help` must not.
_HOME = {"ExportPlan": ".plan", "ExportResult": ".exporter", "export": ".exporter"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vtr_export' has no attribute '{name}'")
    return getattr(import_module(_HOME[name], __name__), name)
