"""What a run tells while it goes: log.jsonl for programs and tb/ for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class RunLog:
    """Appends scalars. After a resume at `step`, what an earlier process wrote beyond it is dropped."""

    def __init__(self, run: Path, *, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = run / "log.jsonl"
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run / "tb"), purge_step=step + 1)

    def add(self, step: int, kind: str, **values: Any) -> None:
        """Write one line {"step", "kind", ...}; numbers also go to TensorBoard as kind/name."""
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


class NoLog(RunLog):
    """For a process that tells nothing."""

    def __init__(self) -> None:
        pass

    def add(self, step: int, kind: str, **values: Any) -> None:
        pass

    def close(self) -> None:
        pass


def _lines(path: Path) -> list[str]:
    """Whole lines only: a process that was killed may have left a part of one."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=False) if line.endswith("}")]
