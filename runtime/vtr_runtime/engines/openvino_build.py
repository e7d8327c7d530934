"""A bundle's graphs -> OpenVINO IR with the precision that it is compiled in."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ..bundle import Bundle
from ..openvino import DEVICE, compile_graph, import_openvino, operators, products_by_precision, write_ir
from ..precision import precision_of_graph
from ..publish import check_output, staged_folder
from .device import host_platform
from .record import EngineRecord, PrecisionUsed, core_hash, file_entries, write_record


def build_openvino(
    bundle: Bundle, *, engine_dir: Path, overwrite: bool = False, say: Callable[[str], None] = lambda _: None
) -> EngineRecord:
    """Write an IR of every graph into `engine_dir/openvino-<precision>`, which appears whole or not at all.

    Each is compiled here once, so that the record says what ran: BackendError where this CPU cannot."""
    openvino = import_openvino()
    precision = bundle.manifest.precision
    ident = f"openvino-{precision}"
    engine_dir.mkdir(parents=True, exist_ok=True)
    check_output(engine_dir / ident, overwrite=overwrite)
    started = time.monotonic()
    used, layers, hints = {}, {}, {}
    with staged_folder(engine_dir / ident, overwrite=overwrite) as staged:
        for name, graph in bundle.manifest.graphs.named().items():
            begun = time.monotonic()
            path = staged / f"{name}.xml"
            write_ir(bundle.file(graph.file), path, graph.precise)
            compiled = compile_graph(path, precision_of_graph(name, precision))
            hints[name] = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
            counts = products_by_precision(compiled)
            most = max(counts, key=lambda kind: counts[kind]) if counts else precision
            used[name] = PrecisionUsed(precision=most, source="compile property", counts=counts)
            layers[name] = operators(compiled)
            say(f"{name}: OpenVINO IR, compiled in {hints[name]}, {time.monotonic() - begun:.0f} s")
        record = EngineRecord(
            id=ident,
            target="openvino",
            core=core_hash(bundle.manifest),
            precision=precision,
            precision_used=used,
            library="OpenVINO",
            library_version=openvino.__version__,
            platform=host_platform(),
            # An IR is read by the version that wrote it and by those after it.
            version_compatible=True,
            settings={"device": DEVICE, "hints": hints, "layers": layers},
            files=file_entries(staged),
            seconds=round(time.monotonic() - started, 3),
        )
        write_record(staged, record)
    return record
