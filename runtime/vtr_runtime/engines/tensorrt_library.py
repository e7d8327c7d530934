"""TensorRT 10 and 11 and TensorRT for RTX behind one door: which is there, and what it can do.

What a library can do is read from the library, save for three names that TensorRT for RTX carries over from TensorRT
and does not honour (its own documentation, and tried with 1.7): a timing cache, version compatibility, hardware
compatibility."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from ..errors import UnavailableError

TensorRTTarget = Literal["trt", "trt-rtx"]
MAJORS: dict[str, tuple[int, ...]] = {"trt": (10, 11), "trt-rtx": (1,)}
LIBRARY: dict[str, str] = {"trt": "tensorrt", "trt-rtx": "tensorrt-rtx"}
# Faulty releases, by what is known of them.
BROKEN = {"10.2.0": "that release is known to be faulty"}


@dataclass(frozen=True)
class Features:
    """What a library's builder honours."""

    timing_cache: bool
    version_compatible: bool
    hardware_levels: tuple[str, ...]
    refit: bool
    strip: bool
    capabilities: tuple[str, ...]


@dataclass(frozen=True)
class TensorRT:
    """A loaded library. `module` is its Python binding, whose names are those of TensorRT's documentation."""

    target: TensorRTTarget
    module: Any
    version: str

    @property
    def name(self) -> str:
        return LIBRARY[self.target]

    @property
    def features(self) -> Features:
        rtx = self.target == "trt-rtx"
        flags = self.module.BuilderFlag
        config = getattr(self.module, "IBuilderConfig", None)  # a runtime alone has no builder
        levels = getattr(self.module, "HardwareCompatibilityLevel", None)
        known = {"AMPERE_PLUS": "ampere+", "SAME_COMPUTE_CAPABILITY": "same-capability"}
        capabilities = [
            name[2:] for name in dir(getattr(self.module, "ComputeCapability", None)) if name.startswith("SM")
        ]
        return Features(
            timing_cache=not rtx and hasattr(config, "set_timing_cache"),
            version_compatible=not rtx and hasattr(flags, "VERSION_COMPATIBLE"),
            hardware_levels=() if rtx else tuple(word for name, word in known.items() if hasattr(levels, name)),
            refit=hasattr(flags, "REFIT") and hasattr(self.module, "OnnxParserRefitter"),
            strip=hasattr(flags, "STRIP_PLAN"),
            capabilities=tuple(sorted(capabilities, key=int)),
        )


def load_tensorrt(target: TensorRTTarget) -> TensorRT:
    """Load the library of a target, or say in one sentence what to install."""
    install = f"pip install 'vtr-runtime[{target}]'"
    if target == "trt":
        install += " (on Jetson it comes with JetPack: apt install python3-libnvinfer)"
    module = _import(target, install)
    version = str(module.__version__)
    if _major(version) not in MAJORS[target]:
        wanted = " or ".join(str(major) for major in MAJORS[target])
        raise UnavailableError(
            f"{LIBRARY[target]} {version} is installed, and target {target} needs {wanted}; {install}"
        )
    for broken, why in BROKEN.items():
        if target == "trt" and version.startswith(broken):
            raise UnavailableError(f"tensorrt {version} is installed, and {why}; install another release: {install}")
    return TensorRT(target, module, version)


def _import(target: TensorRTTarget, install: str) -> Any:
    # NVIDIA's wheel of TensorRT for RTX may hold bindings and libraries alone, without the module that joins them.
    choices: dict[str, list[tuple[str, ...]]] = {
        "trt": [("tensorrt",)],
        "trt-rtx": [("tensorrt_rtx",), ("tensorrt_rtx_libs", "tensorrt_rtx_bindings")],
    }
    broken = f"{LIBRARY[target]} is installed and cannot be loaded"
    for names in choices[target]:
        try:
            return [importlib.import_module(name) for name in names][-1]
        except ModuleNotFoundError as error:
            if error.name not in names:
                raise UnavailableError(
                    f"{LIBRARY[target]} is installed and cannot be loaded ({error}); {install}"
                ) from error
        except (ImportError, OSError, RuntimeError) as error:
            raise UnavailableError(f"{broken} ({error}); {install}") from error
    raise UnavailableError(f"target {target} needs {LIBRARY[target]}, which is not installed; {install}")


def _major(version: str) -> int:
    head = version.split(".")[0]
    return int(head) if head.isdigit() else 0


def make_logger(module: Any, hear: Callable[[Any, str], None]) -> Any:
    """A logger of a library that hands on each message with its severity, and prints nothing."""
    base: Any = module.ILogger

    class Logger(base):  # type: ignore[misc]  # the library is known only at run time
        def __init__(self) -> None:
            base.__init__(self)  # pybind11 does not follow super()

        def log(self, severity: Any, message: str) -> None:
            hear(severity, message)

    return Logger()


def is_error(severity: Any) -> bool:
    return severity.name in ("INTERNAL_ERROR", "ERROR")


class BuilderLog:
    """Writes what a library says to a file, and keeps its errors for the sentence that ends a failed build."""

    def __init__(self, library: TensorRT, path: Path) -> None:
        self.errors: list[str] = []
        self._stream: IO[str] = path.open("a", encoding="utf-8")
        self.logger = make_logger(library.module, self._hear)

    def _hear(self, severity: Any, message: str) -> None:
        if is_error(severity):
            self.errors.append(message)
        if severity.name != "VERBOSE" and not self._stream.closed:
            self._stream.write(f"[{severity.name}] {message}\n")

    def step(self, text: str) -> None:
        """Begin a graph: its own heading, and no errors yet."""
        self.errors.clear()
        self._stream.write(f"== {text}\n")

    def close(self) -> None:
        self._stream.close()


def last_error(errors: Sequence[str]) -> str:
    """What a library said last, on one line."""
    return " ".join(errors[-1].split())[:300] if errors else "the library says nothing"
