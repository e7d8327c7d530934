"""An engine and a bundle with new weights of the same graphs -> an engine with those weights, in seconds.

For nightly fine-tunes, and for engines that were shipped without weights. The engine must have been built with
`--refittable` or `--strip`; its kernels stay as they were chosen."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from ..bundle import Bundle
from ..errors import BackendError, UsageError
from ..publish import staged_folder
from .device import read_device
from .record import EngineRecord, check_record, core_hash, file_entries, read_record, write_record
from .tensorrt_build import BUILD_LOG, Say
from .tensorrt_library import BuilderLog, TensorRT, last_error, load_tensorrt


def refit_engine(
    engine: Path, bundle: Bundle, *, engine_dir: Path, overwrite: bool = False, say: Say = lambda _: None
) -> EngineRecord:
    """Put a bundle's weights into a copy of the engine folder `engine`, as `engine_dir/<id>`; gives its record.

    Needs the GPU and the library that the engine was built with: it is checked like an engine that is to be run, but
    for the weights, which differ on purpose."""
    record = read_record(engine)
    if record.target == "openvino":
        raise UsageError(f"{engine} is an OpenVINO model, which is not refitted; build it: --target openvino")
    if not (record.settings.get("refit") or record.settings.get("strip")):
        raise UsageError(f"{engine} was built without --refittable, so its weights are fixed; build it again with it")
    graphs = bundle.manifest.graphs.named()
    if set(graphs) != set(record.profiles):
        raise UsageError(f"{engine} holds {', '.join(record.profiles)}, and the bundle {', '.join(graphs)}; build anew")
    trt = load_tensorrt(record.target)
    mine = record.model_copy(update={"core": core_hash(bundle.manifest)})
    check_record(mine, bundle.manifest, read_device(), folder=engine, bundle=bundle.folder, library_version=trt.version)
    started = time.monotonic()
    with staged_folder(engine_dir / record.id, overwrite=overwrite) as staged:
        log = BuilderLog(trt, staged / BUILD_LOG)
        try:
            for step, (name, graph) in enumerate(graphs.items(), 1):
                log.step(f"refit {name} with {graph.file}")
                plan = refit_plan(trt, log, (engine / f"{name}.plan").read_bytes(), bundle.file(graph.file).resolve())
                (staged / f"{name}.plan").write_bytes(plan)
                report = engine / f"{name}.layers.json"
                if report.is_file():
                    shutil.copy2(report, staged / report.name)
                say(f"[{step}/{len(graphs)}] {name}: refitted")
        finally:
            log.close()
        changed = {
            "precision": bundle.manifest.precision,
            "settings": {**record.settings, "strip": False, "refitted_from_core": record.core},
            "files": file_entries(staged),
            "seconds": round(time.monotonic() - started, 3),
        }
        refitted = mine.model_copy(update=changed)
        write_record(staged, refitted)
    return refitted


def refit_plan(trt: TensorRT, log: BuilderLog, plan: bytes, onnx: Path) -> bytes:
    """One plan with the weights of an ONNX file whose graph is the one that it was built from."""
    engine = trt.module.Runtime(log.logger).deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(f"{trt.name} {trt.version} cannot load the engine to refit; build it again")
    refitter = trt.module.Refitter(engine, log.logger)
    parser = trt.module.OnnxParserRefitter(refitter, log.logger)
    if not parser.refit_from_file(str(onnx)):
        raise BackendError(f"{onnx.name} does not fit the engine ({_reason(parser, log)}); build the engine again")
    missing = refitter.get_missing_weights()
    if missing:
        raise BackendError(
            f"{onnx.name} lacks weights of the engine ({', '.join(missing[:3])}); build the engine again"
        )
    if not refitter.refit_cuda_engine():
        raise BackendError(f"{trt.name} refuses the weights of {onnx.name} ({_reason(parser, log)}); build it again")
    return _serialise(trt.module, engine)


def _reason(parser: Any, log: BuilderLog) -> str:
    return last_error([parser.get_error(index).desc() for index in range(parser.num_errors)] or log.errors)


def _serialise(module: Any, engine: Any) -> bytes:
    """With weights, and still refittable where the library can say so."""
    config = engine.create_serialization_config()
    config.clear_flag(module.SerializationFlag.EXCLUDE_WEIGHTS)
    if hasattr(module.SerializationFlag, "INCLUDE_REFIT"):
        config.set_flag(module.SerializationFlag.INCLUDE_REFIT)
    return bytes(engine.serialize_with_config(config))
