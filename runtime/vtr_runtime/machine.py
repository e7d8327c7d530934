"""The machine under a measurement: what a reader needs to compare its figures with others."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def describe_machine(threads: int, libraries: Sequence[str]) -> dict[str, Any]:
    """Processor, memory, system and the versions of `libraries`, as plain data."""
    cpu = _cpu_info()
    return {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "instructions": [name for name in INSTRUCTIONS if name in cpu.get("flags", "").split()],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in libraries},
        "load_before": round(os.getloadavg()[0], 2),
    }


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """The same in words."""
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    lines = [
        f"{machine['cpu']} ({', '.join(machine['instructions'])}), {machine['cores']} cores",
        f"{machine['threads']} threads, {machine['memory_gb']} GB, {machine['system']}",
        f"Python {machine['python']}, {libraries}",
    ]
    if machine["load_before"] > 0.5:
        lines.append(f"the machine was not quiet: load average {machine['load_before']} before the start")
    return lines


def peak_memory_mb() -> float:
    """The most memory that this process has held at once. Where /proc is not, also what it was started from held."""
    status = Path("/proc/self/status")
    if status.is_file():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _cpu_info() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
