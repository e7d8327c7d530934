"""Second-stage scores against loops over pairs, tokens and frames in float64, written from the papers' equations."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from vtr_export.model import BackboneConfig, ModelConfig, RerankConfig, RetrievalModel, from_open_clip, rerank
from vtr_export.model.attention import unit
from vtr_export.model.rerank import Reranker, TokenWise, XPool, build_reranker

D, L, N = 16, 6, 5
BACKBONE: dict[str, Any] = {
    "embed_dim": D,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 64, "patch_size": 16},
    "text_cfg": {"vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def build(kind: str, **settings: Any) -> Reranker:
    """With weights that are no identity and no zero."""
    config = RerankConfig(kind=kind, **settings)  # type: ignore[arg-type]
    reranker = build_reranker(ModelConfig.from_backbone(BackboneConfig.from_open_clip(BACKBONE), rerank=config))
    assert reranker is not None
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in reranker.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return reranker.double().eval()


def draw(texts: int = 4, videos: int = 3, seed: int = 0) -> Inputs:
    """Text 1 is of one word, text 2 has a hole; video 1 ends in padding, the last is of one frame."""
    generator = torch.Generator().manual_seed(seed)
    text, words, frames = (
        unit(torch.randn(*shape, D, dtype=torch.float64, generator=generator))
        for shape in ((texts,), (texts, L), (videos, N))
    )
    weights = torch.tensor([[0, 1, 2, 1, 2, 0], [0, 1, 0, 0, 0, 0], [0, 2, 0, 1, 1, 1]], dtype=torch.float64)
    weights = weights[torch.arange(texts) % 3]
    mask = torch.ones(videos, N, dtype=torch.bool)
    mask[1 % videos, 3:] = False
    mask[-1] = False
    mask[-1, 1] = True
    return text, words * (weights > 0).unsqueeze(2), weights, frames * mask.unsqueeze(2), mask


def naive_interaction(
    tokens: np.ndarray, weights: list[float], frames: np.ndarray, mask: list[bool], part: dict[str, Any]
) -> float:
    """One token-wise score of one pair: DMAE's S_sent or S_word."""
    config, hidden = part["config"], part["config"].padding == "hidden"
    seen = [j for j in range(len(frames)) if mask[j]]
    shown = [i for i in range(len(tokens)) if weights[i] > 0]
    product = [[float(x @ f) for f in frames] for x in tokens]

    def importance(
        rows: np.ndarray, places: list[int], given: list[float], head: np.ndarray | None
    ) -> dict[int, float]:
        if config.interaction == "ti":
            return {i: given[i] / sum(given) for i in places}
        powers = {i: math.exp(float(rows[i] @ head)) if head is not None else 1.0 for i in places}
        return {i: powers[i] / sum(powers.values()) * given[i] for i in places}

    alpha = importance(tokens, shown, weights, part["word_head"])
    beta = importance(frames, seen, [float(valid) for valid in mask], part["frame_head"])
    to_video = 0.0
    for i in shown:
        j1 = max(seen if hidden else range(len(frames)), key=lambda j: product[i][j])
        value = product[i][j1]
        if config.visual_attention:
            likeness = [0.0 if j == j1 else float(frames[j1] @ frames[j]) for j in range(len(frames))]
            j2 = max(range(len(frames)), key=lambda j: likeness[j])
            value += config.visual_factor * likeness[j2] * product[i][j2]
        to_video += alpha[i] * value
    rows = shown if hidden else range(len(tokens))
    return (to_video + sum(beta[j] * max(product[i][j] for i in rows) for j in seen)) / 2


def naive_token_wise(reranker: TokenWise, inputs: Inputs) -> np.ndarray:
    text, words, weights, frames, mask = (part.numpy() for part in inputs)
    config = reranker.config
    heads = {
        name: None if (head := getattr(reranker, name)) is None else head.weight.detach().numpy()[0]
        for name in ("word_head", "frame_head")
    }
    scores = np.zeros((len(text), len(frames)))
    for a, b in np.ndindex(*scores.shape):
        parts = []
        if config.tokens != "words":
            alone = {"config": config, "word_head": None, "frame_head": heads["frame_head"]}
            parts.append(naive_interaction(text[a][None], [1.0], frames[b], list(mask[b]), alone))
        if config.tokens != "sentence":
            given = [float(w) if config.textual_attention else float(w > 0) for w in weights[a]]
            parts.append(naive_interaction(words[a], given, frames[b], list(mask[b]), {"config": config, **heads}))
        scores[a, b] = sum(parts) / len(parts)
    return scores


def naive_x_pool(reranker: XPool, inputs: Inputs) -> np.ndarray:
    text, _, _, frames, mask = (part.numpy() for part in inputs)

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        layer = getattr(reranker, name)
        return layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()  # type: ignore[no-any-return]

    def norm(number: int, x: np.ndarray) -> np.ndarray:
        layer = getattr(reranker, f"norm_{number}")
        centred = (x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)
        return centred * layer.weight.detach().numpy() + layer.bias.detach().numpy()  # type: ignore[no-any-return]

    scores = np.zeros((len(text), len(frames)))
    for a, b in np.ndindex(*scores.shape):
        seen = [frame for frame, valid in zip(frames[b], mask[b], strict=True) if valid]
        query = linear("query", norm(1, text[a]))
        powers = [math.exp(float(query @ linear("key", norm(1, frame))) / math.sqrt(D)) for frame in seen]
        values = [linear("value", norm(1, frame)) for frame in seen]
        pooled = sum(p / sum(powers) * value for p, value in zip(powers, values, strict=True))
        r = norm(2, linear("out", np.asarray(pooled)))
        z = norm(3, r + linear("last", r))
        scores[a, b] = text[a] @ z / np.linalg.norm(z)
    return scores


SWITCHES = [
    {"interaction": interaction, "tokens": tokens, "padding": padding} | ta | va
    for interaction, tokens, padding, ta, va in itertools.product(
        ["ti", "wti"],
        ["sentence", "words", "both"],
        ["hidden", "zero"],
        [{}, {"textual_attention": False}],
        [{}, {"visual_factor": 0.9}, {"visual_attention": False}],
    )
    if not (ta and tokens == "sentence")
]
KINDS: list[tuple[str, dict[str, Any]]] = [("token-wise", {}), ("token-wise", {"interaction": "wti"}), ("x-pool", {})]


@pytest.mark.parametrize("settings", SWITCHES, ids=lambda settings: "-".join(map(str, settings.values())))
@torch.no_grad()
def test_token_wise_equals_the_loop(settings: dict[str, Any]) -> None:
    reranker = build("token-wise", **settings)
    assert isinstance(reranker, TokenWise)
    for seed in range(3):
        inputs = draw(seed=seed)
        np.testing.assert_allclose(reranker(*inputs).numpy(), naive_token_wise(reranker, inputs), rtol=0, atol=1e-12)


@torch.no_grad()
def test_every_switch_changes_the_score() -> None:
    """Otherwise the comparison with the loop could not fail for it. Padding matters where all products are negative."""
    text, words, weights, frames, mask = draw()
    inputs = -text.abs(), -words.abs(), weights, frames.abs(), mask
    usual = build("token-wise")(*inputs)
    for changed in (
        {"interaction": "wti"},
        {"tokens": "sentence"},
        {"tokens": "words"},
        {"textual_attention": False},
        {"visual_attention": False},
        {"visual_factor": 0.9},
        {"padding": "zero"},
    ):
        assert (build("token-wise", **changed)(*inputs) - usual).abs().max() > 1e-3, changed


@torch.no_grad()
def test_x_pool_equals_the_loop() -> None:
    reranker, inputs = build("x-pool"), draw()
    assert isinstance(reranker, XPool)
    np.testing.assert_allclose(reranker(*inputs).numpy(), naive_x_pool(reranker, inputs), rtol=0, atol=1e-12)


def test_x_pool_begins_as_the_identity() -> None:
    for layer in XPool(D, RerankConfig(kind="x-pool")).modules():
        if isinstance(layer, nn.Linear):
            assert torch.equal(layer.weight, torch.eye(D))
            assert not layer.bias.any()


def test_dropout_acts_in_training_alone() -> None:
    reranker, inputs = build("x-pool", dropout=0.5), draw()
    assert torch.equal(reranker(*inputs), reranker(*inputs))
    reranker.train()
    assert not torch.allclose(reranker(*inputs), reranker(*inputs))


@pytest.mark.parametrize("padding", ["hidden", "zero"])
@torch.no_grad()
def test_one_frame_has_no_companion(padding: str) -> None:
    """The last video of the draw."""
    inputs = draw()
    with_it, without = (
        build("token-wise", padding=padding),
        build("token-wise", padding=padding, visual_attention=False),
    )
    difference = (with_it(*inputs) - without(*inputs)).abs()
    assert difference[:, -1].max() == 0
    assert difference[:, 0].max() > 1e-3


@pytest.mark.parametrize(("kind", "settings"), [*KINDS, ("token-wise", {"padding": "zero"})])
@torch.no_grad()
def test_what_is_hidden_changes_nothing(kind: str, settings: dict[str, Any]) -> None:
    reranker, (text, words, weights, frames, mask) = build(kind, **settings), draw()
    clean = reranker(text, words, weights, frames, mask)
    words, frames = words.clone(), frames.clone()
    words[weights == 0], frames[~mask] = torch.nan, torch.inf
    assert torch.equal(reranker(text, words, weights, frames, mask), clean)


@pytest.mark.parametrize(("kind", "settings"), KINDS)
@torch.no_grad()
def test_hidden_padding_is_as_if_it_were_not_there(kind: str, settings: dict[str, Any]) -> None:
    reranker, (text, words, weights, frames, mask) = build(kind, **settings), draw()
    scores = reranker(text, words, weights, frames, mask)
    for a, b in np.ndindex(*scores.shape):
        shown, seen = weights[a] > 0, mask[b]
        alone = reranker(
            text[a : a + 1],
            words[a : a + 1, shown],
            weights[a : a + 1, shown],
            frames[b : b + 1, seen],
            seen[None, seen],
        )
        assert abs(float(alone) - float(scores[a, b])) < 1e-12


@pytest.mark.parametrize(("kind", "settings"), KINDS)
@torch.no_grad()
def test_candidates_of_one_text(kind: str, settings: dict[str, Any]) -> None:
    reranker, (text, words, weights, frames, mask) = build(kind, **settings), draw(videos=6)
    scores = reranker(text, words, weights, frames, mask)
    for i, top in ((0, [4, 1]), (2, [5]), (3, [0, 2, 3, 3])):
        found = reranker(text[i : i + 1], words[i : i + 1], weights[i : i + 1], frames[top], mask[top])
        assert found.shape == (1, len(top))
        assert torch.allclose(found[0], scores[i, top], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "settings"), [*KINDS, ("token-wise", {"tokens": "sentence"})])
@torch.no_grad()
def test_several_passes_give_the_same(kind: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    reranker, inputs = build(kind, **settings), draw(texts=7)
    whole = reranker(*inputs)
    rows: list[int] = []
    score = reranker.score

    def counted(text: Tensor, *rest: Tensor) -> Tensor:
        rows.append(len(text))
        return score(text, *rest)

    monkeypatch.setattr(reranker, "score", counted)
    monkeypatch.setattr(rerank, "CHUNK", 3 * reranker.numbers_per_text(inputs[1], inputs[3]))
    assert torch.allclose(reranker(*inputs), whole, rtol=0, atol=1e-12)
    monkeypatch.setattr(rerank, "CHUNK", 1)
    assert torch.allclose(reranker(*inputs), whole, rtol=0, atol=1e-12)
    assert rows == [3, 3, 1] + [1] * 7


@pytest.mark.parametrize("settings", [{}, {"interaction": "wti", "tokens": "sentence"}, {"padding": "zero"}])
def test_gradients_of_the_token_wise_score_flow_everywhere(settings: dict[str, Any]) -> None:
    """Differences of the score itself: nothing is detached, the frames' likeness among themselves included."""
    reranker = build("token-wise", **settings)
    text, words, weights, frames, mask = draw(texts=2, videos=2)

    def score(text: Tensor, words: Tensor, frames: Tensor) -> Tensor:
        return reranker(text, words, weights, frames, mask)  # type: ignore[no-any-return]

    given = [part.clone().requires_grad_() for part in (text, words, frames)]
    assert torch.autograd.gradcheck(score, given)


@pytest.mark.parametrize(
    ("kind", "settings"), [*KINDS[1:], ("token-wise", {"interaction": "wti", "tokens": "sentence"})]
)
def test_every_parameter_learns(kind: str, settings: dict[str, Any]) -> None:
    reranker, inputs = build(kind, **settings), draw()
    (reranker(*inputs) * torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(4, 3)).sum().backward()
    for name, parameter in reranker.named_parameters():
        assert parameter.grad is not None, name
        # A bias of the keys adds the same to the scores of all frames: its gradient is rounding alone.
        assert parameter.grad.abs().max() > (0 if name == "key.bias" else 1e-6), name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_one_query_with_any_number_of_candidates_exports(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    reranker = build(kind, **settings).float()
    names = ("text", "words", "word_weights", "frames", "frame_mask")

    def query(candidates: int, tokens: int) -> Inputs:
        text, words, weights, frames, mask = draw(texts=1, videos=candidates, seed=candidates)
        return text.float(), words[:, :tokens].float(), weights[:, :tokens].float(), frames.float(), mask

    candidates = torch.export.Dim("candidates", min=1, max=1000)
    tokens = torch.export.Dim("tokens", min=2, max=77)
    program = torch.onnx.export(
        reranker,
        query(3, L),
        input_names=list(names),
        output_names=["scores"],
        dynamic_shapes=({}, {1: tokens}, {1: tokens}, {0: candidates}, {0: candidates}),
        opset_version=18,
        dynamo=True,
        optimize=True,
        verbose=False,
    )
    assert program is not None
    program.save(tmp_path / "rerank.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "rerank.onnx", providers=["CPUExecutionProvider"])
    taken = {value.name for value in session.get_inputs()}
    for count, length in ((1, 3), (2, L), (50, 4)):
        inputs = query(count, length)
        feed = {name: part.numpy() for name, part in zip(names, inputs, strict=True) if name in taken}
        [found] = session.run(["scores"], feed)
        assert found.shape == (1, count)
        with torch.no_grad():
            np.testing.assert_allclose(found, reranker(*inputs).numpy(), rtol=0, atol=1e-5)


def test_a_model_has_the_second_stage_its_configuration_names() -> None:
    plain = from_open_clip(BACKBONE, pretrained=None)
    assert plain.rerank is None
    pooled = from_open_clip(BACKBONE, pretrained=None, rerank=RerankConfig(kind="x-pool", dropout=0.1))
    assert isinstance(pooled.rerank, XPool)
    assert pooled.rerank.dropout.p == 0.1
    interacting = RetrievalModel(pooled.config.model_copy(update={"rerank": RerankConfig(kind="token-wise")}))
    assert isinstance(interacting.rerank, TokenWise)
    assert not list(interacting.rerank.parameters())


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"visual_attention": False, "visual_factor": 0.3}, "visual_factor"),
        ({"tokens": "sentence", "textual_attention": False}, "textual_attention"),
    ],
)
def test_a_setting_without_effect_is_refused(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} has no effect"):
        RerankConfig(kind="token-wise", **settings)
