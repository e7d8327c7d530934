"""engine.json: what an engine was built from, with what, and for which machine. It is written last, so that a folder
without it is an unfinished build; it is checked before an engine is deserialised, because a library that refuses a plan
seldom says why."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from ..errors import BackendError
from ..manifest import FileEntry, Manifest, Precision, Record, file_sha256, fingerprint
from .device import DeviceInfo, host_platform

ENGINE_JSON = "engine.json"
ENGINE_SCHEMA = 1
ENGINES = "engines"

Target = Literal["trt", "trt-rtx", "openvino"]
# Of an input: the smallest, the best served and the largest shape.
Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]


class PrecisionUsed(Record):
    """In which types a graph's matrix products run, and where that was read."""

    precision: str = Field(description="the type of most of them")
    source: Literal["engine layers", "parsed network", "compile property"]
    counts: dict[str, int] = Field(default={}, description="matrix products by the type of what they give")
    attention: str = Field(default="", description="how the operator Attention is built, where the graph has it")


class EngineRecord(Record):
    format: Literal["vtr-engine"] = "vtr-engine"
    schema_version: int = ENGINE_SCHEMA
    id: str
    target: Target
    core: str = Field(pattern="^[0-9a-f]{64}$", description="core_hash of the bundle it was built from")
    precision: Precision = Field(description="what was asked for")
    precision_used: dict[str, PrecisionUsed] = Field(description="by graph")
    library: str
    library_version: str
    capabilities: tuple[str, ...] = Field(default=(), description="GPU capabilities it may run on, such as 89")
    driver: str | None = Field(default=None, description="highest CUDA that the builder's driver knows")
    platform: str
    hardware_compatibility: Literal["none", "ampere+", "same-capability"] = "none"
    version_compatible: bool = False
    profiles: dict[str, tuple[Shapes, ...]] = Field(default={}, description="by graph")
    settings: dict[str, Any] = Field(default={}, description="the builder's, as asked for")
    files: dict[str, FileEntry] = Field(description="every file beside this one")
    seconds: float = Field(ge=0, description="how long the build took")
    log: str | None = Field(default=None, description="name of the builder's log")


def core_hash(manifest: Manifest) -> str:
    """sha256 over the sha256 of every core file: an engine belongs to exactly these graphs and weights."""
    return fingerprint({name: entry.sha256 for name, entry in manifest.files.items()})


def rebuild_command(bundle: Path, target: str) -> str:
    return f"vtr-runtime build {shlex.quote(str(bundle))} --target {target} --overwrite"


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Size and sha256 of every file in a finished folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ENGINE_JSON)
    return {
        path.relative_to(folder).as_posix(): FileEntry(sha256=file_sha256(path), size=path.stat().st_size)
        for path in files
    }


def write_record(folder: Path, record: EngineRecord) -> None:
    """Write engine.json: the last step of a build."""
    (folder / ENGINE_JSON).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_record(folder: Path) -> EngineRecord:
    """Read engine.json; a folder that has none, a foreign or a newer one is a BackendError."""
    path = folder / ENGINE_JSON
    if not path.is_file():
        raise BackendError(f"{folder} holds no {ENGINE_JSON}: its build was not finished; delete it and build again")
    try:
        data = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        version = data.get("schema_version") if isinstance(data, dict) else None
        if isinstance(version, int) and version > ENGINE_SCHEMA:
            raise BackendError(
                f"{path} has schema {version}, and this vtr-runtime reads up to {ENGINE_SCHEMA}; "
                "upgrade it: pip install -U vtr-runtime"
            )
        return EngineRecord.model_validate(data)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise BackendError(f"{path} is malformed at '{where}'; delete its folder and build the engine again") from error
    except ValueError as error:
        raise BackendError(f"{path} is not JSON ({error}); delete its folder and build the engine again") from error


def find_engines(folder: Path) -> list[tuple[Path, EngineRecord]]:
    """The finished engines in an engine folder, by name. What an interrupted build left is passed over."""
    if not folder.is_dir():
        return []
    finished = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return [(path, read_record(path)) for path in finished if (path / ENGINE_JSON).is_file()]


def check_record(
    record: EngineRecord,
    manifest: Manifest,
    device: DeviceInfo | None,
    *,
    folder: Path,
    bundle: Path,
    library_version: str,
) -> None:
    """Raise BackendError with the mismatch and the rebuild command, before the engine in `folder` is deserialised.

    `library_version` is that of the library which would load it; `device` is the GPU it would run on."""
    problem = misfit(record, manifest, device, library_version) or _damage(record, folder)
    if problem:
        again = f"build it here: {rebuild_command(bundle, record.target)}"
        raise BackendError(f"engine {record.id} {problem}; {again}")


def misfit(record: EngineRecord, manifest: Manifest, device: DeviceInfo | None, library_version: str) -> str:
    """Why an engine cannot serve this bundle on this machine, in words; empty where it can, its files aside."""
    return (
        _other_core(record, manifest)
        or _other_platform(record)
        or _other_version(record, library_version)
        or _other_device(record, device)
    )


def flaw(record: EngineRecord, manifest: Manifest, folder: Path) -> str:
    """Why an engine in `folder` can serve this bundle on no machine at all, in words; empty where nothing says so."""
    return _other_core(record, manifest) or _damage(record, folder)


def _other_core(record: EngineRecord, manifest: Manifest) -> str:
    if record.core == core_hash(manifest):
        return ""
    return f"was built from other graphs or weights than this bundle's (core {record.core[:12]})"


def _other_platform(record: EngineRecord) -> str:
    built, here = record.platform, host_platform()
    if record.target == "trt-rtx":  # its engines go between Linux and Windows, but not between architectures
        built, here = built.partition("-")[2], here.partition("-")[2]
    return "" if built == here else f"was built for {record.platform}, and this is {host_platform()}"


def _other_version(record: EngineRecord, library_version: str) -> str:
    built, here = record.library_version, library_version
    if record.version_compatible and _numbers(here)[:1] == _numbers(built)[:1] and _numbers(here) >= _numbers(built):
        return ""
    return "" if built == here else f"was built with {record.library} {built}, and {here} is installed"


def _other_device(record: EngineRecord, device: DeviceInfo | None) -> str:
    if not record.capabilities:
        return ""
    wanted = ", ".join(f"SM{sm}" for sm in record.capabilities)
    if device is None:
        return f"needs an NVIDIA GPU of {wanted}, and none was found"
    # Discrete GPUs only: TensorRT does not offer this level on Jetson.
    ampere = record.hardware_compatibility == "ampere+" and int(device.sm) >= 80 and not device.integrated
    if device.sm in record.capabilities or ampere:
        return ""
    return f"was built for {wanted}, and this GPU is {device.name} of SM{device.sm}"


def _damage(record: EngineRecord, folder: Path) -> str:
    for name, entry in record.files.items():
        path = folder / name
        if not path.is_file():
            return f"lacks its file {name}"
        if path.stat().st_size != entry.size or file_sha256(path) != entry.sha256:
            return f"is damaged: {name} is not the file that was built"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    parts = []
    for part in version.replace("-", ".").split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)
