"""The driver by ctypes and DLPack, both without a GPU: against cuda.h itself, and against numpy and torch."""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from vtr_runtime.backends.cuda import SIGNATURES, Cuda
from vtr_runtime.backends.dlpack import CPU, Result, view
from vtr_runtime.errors import BackendError, UnavailableError, UsageError

HEADERS = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "include"
needs_header = pytest.mark.skipif(
    shutil.which("cc") is None or not (HEADERS / "cuda.h").is_file(), reason="no C compiler, or no cuda.h beside torch"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """A library of the host's own memory, compiled against NVIDIA's header."""
    path = tmp_path_factory.mktemp("driver") / "libcuda.so"
    source = Path(__file__).with_name("fake_driver.c")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-Wall", "-Werror", f"-I{HEADERS}", str(source), "-o", str(path)], check=True
    )
    return ctypes.CDLL(str(path))


@needs_header
def test_the_driver_is_called_as_its_header_says(driver: ctypes.CDLL) -> None:
    cuda = Cuda(0, driver)
    with cuda.current():
        assert driver.fake_depth() == 1
    assert driver.fake_depth() == 0
    stream, address, host = cuda.create_stream(), cuda.allocate(1000), cuda.pinned(1000)
    assert address > 1 << 32  # an address cut to 32 bits would not be found again
    host[:] = np.arange(1000) % 251
    cuda.to_device(address, host.ctypes.data, 1000, stream)
    out = np.zeros(1000, np.uint8)
    cuda.to_host(out.ctypes.data, address, 1000, stream)
    cuda.synchronize(stream)
    assert np.array_equal(out, host)
    seen = []
    graph = cuda.capture(stream, lambda: seen.append("captured"))
    cuda.launch(graph, stream)
    assert (seen, driver.fake_launches()) == (["captured"], 1)
    with pytest.raises(ZeroDivisionError):
        cuda.capture(stream, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    cuda.destroy_graph(cuda.capture(stream, lambda: None))  # the capture before was ended
    cuda.destroy_graph(graph)
    cuda.free(address)
    cuda.free_pinned(host)
    cuda.destroy_stream(stream)
    assert driver.fake_live() == 0


@needs_header
def test_what_the_driver_answers_is_a_sentence(driver: ctypes.CDLL) -> None:
    with pytest.raises(
        BackendError, match="answered CUDA_ERROR_OUT_OF_MEMORY to cuMemAlloc_v2; the GPU's memory is full"
    ):
        Cuda(0, driver).allocate(1 << 50)
    with pytest.raises(UnavailableError, match=r"there is no NVIDIA GPU 3: .* CUDA_ERROR_INVALID_DEVICE"):
        Cuda(3, driver)


def test_a_driver_without_a_function_is_too_old() -> None:
    with pytest.raises(UnavailableError, match=f"too old: it has no {next(iter(SIGNATURES))}"):
        Cuda(0, object())


def test_no_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtr_runtime.backends.cuda.open_driver", lambda: None)
    with pytest.raises(UnavailableError, match=r"no NVIDIA driver was found \(libcuda\)"):
        Cuda()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int32, torch.float32])
def test_a_tensor_of_torch_is_seen_where_it_lies(dtype: torch.dtype) -> None:
    tensor = torch.arange(24).to(dtype).reshape(2, 3, 4)[1:]  # an offset
    found = view("x", tensor, (CPU, 0), None)
    assert (found.address, found.shape, found.dtype) == (
        tensor.data_ptr(),
        (1, 3, 4),
        str(dtype).removeprefix("torch."),
    )


def test_what_no_graph_takes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"x has gaps in memory; make it contiguous first"):
        view("x", torch.zeros(4, 4).T[:3], (CPU, 0), None)
    with pytest.raises(UsageError, match="x has a type that no graph takes; convert it to one of int32"):
        view("x", torch.zeros(4, dtype=torch.int64), (CPU, 0), None)
    with pytest.raises(
        UsageError, match=r"x lies on DLPack device \(1, 0\), and this backend runs on \(2, 0\); move it"
    ):
        view("x", torch.zeros(4), (2, 0), None)
    with pytest.raises(UsageError, match=r"x is not lent by its owner: .*gradient"):
        view("x", torch.zeros(4, requires_grad=True), (CPU, 0), None)
    with pytest.raises(UsageError, match=r"x must be a tensor with __dlpack__ .*, not list"):
        view("x", [1.0], (CPU, 0), None)  # type: ignore[arg-type]


def test_a_result_is_taken_without_a_copy_and_freed_by_its_last_holder() -> None:
    memory, freed = np.arange(6, dtype=np.float32), []
    result = Result(memory.ctypes.data, (2, 3), "float32", (CPU, 0), lambda: freed.append(True))
    tensor = torch.from_dlpack(result)
    assert tensor.data_ptr() == memory.ctypes.data
    assert tensor.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert result.numpy().tolist() == tensor.tolist()
    del result
    gc.collect()
    assert freed == []
    del tensor
    gc.collect()
    assert freed == [True]


def test_a_capsule_that_nobody_takes_frees_what_is_in_it() -> None:
    memory, freed = np.zeros(3, np.float32), []
    result = Result(memory.ctypes.data, (3,), "float32", (CPU, 0), lambda: freed.append(True))
    capsule = result.__dlpack__()
    del result
    assert freed == []
    del capsule
    gc.collect()
    assert freed == [True]
