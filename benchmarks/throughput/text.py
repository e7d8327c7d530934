"""One short query and 64 captions through the text tower with DITS, from words to unit embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from contestant import Contestant
from numpy.typing import NDArray
from sentences import CAPTIONS

Run = Callable[[], NDArray[np.float32]]
QUERY = "a brown dog runs along the sandy beach"  # ten tokens with start and end


def prepare_text(contestant: Contestant, threads: int, bundle: Path) -> dict[str, Run]:
    """Passes over the query and over the captions. `bundle` lends the peers its tokenizer."""
    captions = CAPTIONS.read_text(encoding="utf-8").splitlines()
    encode = _ours(contestant, threads) if contestant.ours else _torch(contestant, bundle)
    return {"query": lambda: encode([QUERY]), "captions": lambda: encode(captions)}


def _ours(contestant: Contestant, threads: int) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """`Model.encode_texts` as users call it: cut to length, sorted, in batches."""
    from vtr_runtime import load
    from vtr_runtime.backends import Backend
    from vtr_runtime.bundle import open_bundle
    from vtr_runtime.model import Model

    if contestant.engine == "onnxruntime":
        return load(contestant.source, "onnx-cpu", threads=threads, query_cache=0).encode_texts

    from openvino_cpu import OpenVinoText

    bundle = open_bundle(contestant.source)
    graph = bundle.file(bundle.manifest.graphs.text.file)
    engine = OpenVinoText(graph, hint=contestant.hint, threads=threads)
    return Model(bundle, cast(Backend, engine), "openvino", query_cache=0).encode_texts


def _torch(contestant: Contestant, bundle: Path) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Our own module in PyTorch. `padded` to the context length as CLIP's own code does, or `trimmed` per batch."""
    import torch

    from vtr_export.model.checkpoint import load_checkpoint
    from vtr_runtime.bundle import TOKENIZER, open_bundle
    from vtr_runtime.text import Tokenizer

    opened = open_bundle(bundle)
    tokenizer = Tokenizer.from_file(opened.file(TOKENIZER), opened.manifest.text)
    tower: Any = load_checkpoint(contestant.source).model.text.eval()
    if contestant.engine == "compiled":
        import torch._inductor.config

        torch._inductor.config.freezing = True
        # One program per shape: frozen programs are specialised, and the two workloads are two shapes.
        tower = torch.compile(tower, dynamic=False)
    autocast = contestant.engine == "autocast"

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        ids = tokenizer.encode(texts)
        if contestant.engine == "trimmed":
            ids = tokenizer.trim(ids)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return cast(NDArray[np.float32], tower(torch.from_numpy(ids)).float().numpy())

    return encode
