"""Which provider runs how much of a graph. ONNX Runtime gives what a provider does not take to the CPU and says it in a
log line; here it is counted, and too little is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BackendError

RECORD = "session.record_ep_graph_assignment_info"
# ONNX Runtime puts what computes with shapes on the CPU on purpose, and a shape's arithmetic cannot be told from other
# arithmetic by its operator. So a share is asked for that our graphs keep (Shape and what feeds on it is under a tenth
# of their nodes) and, beside it, every operator in which the time goes.
REQUIRED_SHARE = 0.8
PRODUCTS = frozenset({
    "MatMul", "Gemm", "Conv", "FusedMatMul", "FusedGemm", "FusedConv", "Attention", "MultiHeadAttention",
    "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "QLinearMatMul", "QLinearConv", "QGemm",
})  # fmt: skip


@dataclass(frozen=True)
class Coverage:
    """Nodes of one graph by provider, and of them the matrix products, convolutions and attentions."""

    nodes: Mapping[str, int]
    products: Mapping[str, int]

    def share(self, provider: str) -> float:
        return self.nodes.get(provider, 0) / max(1, sum(self.nodes.values()))

    @property
    def summary(self) -> str:
        """Such as `CUDAExecutionProvider 120 of 126 nodes, CPUExecutionProvider 6 of 126 nodes`."""
        total = sum(self.nodes.values())
        return ", ".join(f"{name} {count} of {total} nodes" for name, count in self.nodes.items())


def read_coverage(session: Any) -> Coverage | None:
    """Of a session opened with RECORD; None where ONNX Runtime is too old to tell (before 1.24)."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    nodes: Counter[str] = Counter()
    products: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            nodes[part.ep_name] += 1
            products[part.ep_name] += node.op_type in PRODUCTS
    return Coverage(dict(nodes.most_common()), dict(products))


def check_coverage(graph: str, coverage: Coverage | None, provider: str) -> None:
    """BackendError where the provider that was asked for does not run what it ought to."""
    allow = "run it as it is with --allow-fallback (allow_fallback=True)"
    if coverage is None:
        raise BackendError(
            "this onnxruntime cannot tell which provider runs which node; install onnxruntime-gpu 1.24 or later, "
            f"or {allow}"
        )
    elsewhere = {name: count for name, count in coverage.products.items() if count and name != provider}
    share = coverage.share(provider)
    if elsewhere or share < REQUIRED_SHARE:
        moved = ", ".join(f"{count} matrix products on {name}" for name, count in elsewhere.items())
        raise BackendError(
            f"{graph}: {provider} runs {share:.0%} of the graph ({coverage.summary}{'; ' + moved if moved else ''}), "
            f"and at least {REQUIRED_SHARE:.0%} with every matrix product is asked for; {allow}"
        )
