"""A report with every status and hostile names, and no run behind it."""

from __future__ import annotations

from dataclasses import replace

from vtr_conformance.details.records import (
    About,
    Details,
    GraphOperators,
    Latency,
    ModuleError,
    ScorePairs,
)
from vtr_conformance.results import Direction, Report, Result, Retrieval, WorstQuery

# What a file or a caption may be called: markup, quotes, control characters, half a surrogate pair, a turned line.
HOSTILE = "<script>document.title='bitten'</script> & \"x\" 'y' \x00\x0b\udce9\uffff\u202egnp.exe ]]> $x^{"

RESULTS = (
    Result("vtr-runtime", "onnx-cpu", "ids", "ids/texts", "pass", 0.0, 0.0, unit="ids"),
    Result(
        "vtr-runtime", "onnx-cpu", "pixels", HOSTILE, "fail", 3.0, 0.0, where=f"at clip 1 ({HOSTILE})", hint="a resize"
    ),
    Result("vtr-runtime", "onnx-cpu", "aligned", "aligned/texts", "pass", 2e-7, 1e-5, unit="max |difference|"),
    Result("vtr-runtime", "onnx-cpu", "video_embedding", "clips", "fail", float("inf"), 1e-5, "not finite", "a mask"),
    Result("vtr-runtime", "onnx-cpu", "rerank", "text-1", "fail", None, 1e-5, "it raised", "words", "scale"),
    Result("vtr-runtime", "trt", "aligned", "aligned/texts", "not_run", hint=f"no GPU {HOSTILE}"),
    Result("vtr-runtime", "trt", "sampler_step_2", "texts", "not_run", hint="no output sampler_step_2"),
    Result("vtr-runtime", "trt", "sampler_step_3", "texts", "not_run", hint="no output sampler_step_3"),
    Result("pytorch", "torch", "aligned", "aligned/texts", "pass", 0.0, 1e-5, unit="max |difference|"),
)

T2V = Direction(
    queries=80,
    gallery=40,
    figures={"R@1": 44.0, "R@5": 70.0, "R@10": 81.0, "MdR": 2.0, "MnR": 3.5},
    reference={"R@1": 45.0, "R@5": 70.0, "R@10": 80.0, "MdR": 2.0, "MnR": 3.25},
    identical=71,
    flips=2,
    flips_outside=1,
    largest_flip=0.003,
    top10_changed=4,
    top10_outside=0,
    largest_top10=0.0005,
    tau=0.99,
    worst_tau=0.9,
    worst=WorstQuery(HOSTILE, "bear.webm", HOSTILE, (0.303, 0.300), (0.299, 0.301)),
)

RETRIEVAL = Retrieval(
    host="vtr-runtime",
    backend="onnx-cpu",
    precision="fp32",
    data="demo",
    split="test",
    videos=40,
    texts=80,
    unreadable=1,
    noise=0.001,
    meaningful=True,
    rsum=400.0,
    reference_rsum=400.0,
    t2v=T2V,
    v2t=replace(T2V, queries=40, gallery=80, flips=0, flips_outside=0, tau=None, worst_tau=None, worst=None),
    pairs=((0.1, 0.1), (0.4, 0.41)),
)

ABOUT = About(
    model="custom",
    precision="fp32",
    space="5" * 64,
    variant="6" * 64,
    manifest_sha256="7" * 64,
    made_with={"torch": "2.11"},
    machine={
        "cpu": "a processor",
        "instructions": ["avx2"],
        "cores": 2,
        "threads": 1,
        "memory_gb": 8.0,
        "system": "Linux",
        "python": "3.11",
        "libraries": {"numpy": "2"},
        "load_before": 0.1,
    },
    date="2026-01-02T03:04:05+00:00",
    command="vtr-conformance run BUNDLE --ckpt best.pt",
)

DETAILS = Details(
    about=ABOUT,
    modules=(
        ModuleError("video", "video.backbone.ln_pre", 1e-7, 1),
        ModuleError("video", "video.temporal", float("inf"), 12),
        ModuleError("text", "text.backbone.token_embedding", 0.0, 1),
    ),
    operators=(
        GraphOperators("video", {"Add": 5, "Gelu": 2}, {"gelu": 2}, {"gelu": 3}, {"ms.BiasGelu": 2, "Add": 3}),
        GraphOperators("text", {"Add": 5}, {"gelu": 0}),
    ),
    latencies=(
        Latency("vtr-runtime", "onnx-cpu", "fp32", "text", 1, 7, 4.0),
        Latency("vtr-runtime", "onnx-cpu", "fp32", "text", 8, 7, 16.0),
        Latency("vtr-runtime", "onnx-cpu", "fp32", "video", 1, 3, 250.0),
    ),
    scores=(ScorePairs("vtr-runtime", "onnx-cpu", "fp32", (0.1, 0.2, 0.3), (0.1, 0.2, 0.31)),),
    notes=("timing of another host was not possible",),
)

REPORT = Report(RESULTS, (RETRIEVAL,), "fp32", details=DETAILS)
