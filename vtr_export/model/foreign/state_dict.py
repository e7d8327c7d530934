"""A file of weights -> its named tensors. No code in it is run."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtr_runtime.errors import CheckpointError

from ..checkpoint import FORMAT, read_weights_only, refuse_non_finite

SCALARS = frozenset({"input_resolution", "context_length", "vocab_size"})
"""What OpenAI's own files hold beside their weights, and no other family's do."""
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_BUFFERS = ("attn_mask", "position_ids")  # constants that older versions saved; a mask holds -inf


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a torch.save file (.pt, .pth, .bin) or .safetensors, finite. Raises CheckpointError."""
    return state_dict_of(read_content(path), path)


def read_content(path: Path) -> Any:
    """Whatever the file holds, as plain values and tensors. Raises CheckpointError."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except FileNotFoundError as error:
            raise CheckpointError(f"{path} does not exist; check the path") from error
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path}: not readable as safetensors ({error}); copy or download it again"
            ) from error
    if _is_torchscript(path):
        command = f"torch.save(torch.jit.load({str(path)!r}, map_location='cpu').state_dict(), 'weights.pt')"
        raise CheckpointError(
            f"{path} is a TorchScript archive, which holds code, and was not run; if you trust it, take the weights "
            f'out of it with: python -c "import torch; {command}"'
        )
    return read_weights_only(path)


def state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The weights in what `path` holds, bare or in a training checkpoint, without DistributedDataParallel's prefix.

    Raises CheckpointError where there are none, or where one is not finite."""
    if isinstance(content, dict) and content.get("format") == FORMAT:
        raise CheckpointError(f"{path} is a checkpoint of this project, not weights alone; give it as --ckpt {path}")
    found = content if isinstance(content, dict) else {}
    for wrapper in _WRAPPERS:
        if isinstance(found.get(wrapper), dict):
            found = found[wrapper]
            break
    weights: dict[str, Tensor] = {}
    for name, value in found.items():
        if name in SCALARS and isinstance(value, int):
            value = torch.tensor(value)
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: it holds no state dict ('{name}' is a {type(value).__name__}); give a file of named tensors"
            )
        if name.rpartition(".")[2] not in _BUFFERS:
            weights[name.removeprefix("module.")] = value
    if not weights:
        raise CheckpointError(f"{path}: it holds no state dict; give a file of named tensors")
    refuse_non_finite(weights, path)
    return weights


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False
