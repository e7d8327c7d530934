"""The other alignment heads, each against its equation in a loop, in float64; and where a head stands."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from vtr_export.model import AlignmentConfig, BackboneConfig, ModelConfig, RetrievalModel, redraw_zero_parameters
from vtr_export.model.alignment import FixedPrior, ResidualMlp, build_alignment_head
from vtr_export.model.alignment_network import AlignmentNetwork
from vtr_export.model.diffusion import GapDiffusion
from vtr_export.model.schedule import EVALUATION_SEED

D, B, STEPS = 16, 5, 4
BETAS = [0.1 + (0.99 - 0.1) * i / (STEPS - 1) for i in range(STEPS)]


def build(kind: str, *, redrawn: bool = True, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = AlignmentConfig(kind=kind, **settings)  # type: ignore[arg-type]
    head = build_alignment_head(D, config, "text")
    assert head is not None
    if redrawn:
        redraw_zero_parameters(head, seed=1)
    return head.eval()


def diffusion(**settings: Any) -> Any:
    return build("diffusion", steps=STEPS, blocks=2, heads=4, **settings)


def rows(seed: int, count: int = B) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


def norm_1(x: Tensor) -> Tensor:
    return x / x.pow(2).sum().sqrt()


def abar(k: int) -> float:
    return math.prod(1 - beta for beta in BETAS[:k])


def draws(training: bool) -> torch.Generator:
    return torch.Generator().manual_seed(7 if training else EVALUATION_SEED)


def naive_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return torch.stack([(layer.weight[i] * x).sum() + layer.bias[i] for i in range(len(layer.bias))])


def naive_norm(x: Tensor, eps: float) -> Tensor:
    return (x - x.mean()) / ((x - x.mean()).pow(2).mean() + eps).sqrt()


def naive_eps(network: Any, x: Tensor, k: int, t: Tensor | None) -> Tensor:
    """DiT blocks on a sequence of one token, one sample; attention over one token is its value and output layers."""
    angles = [k * 10000 ** (-i / 128) for i in range(128)]
    time = torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles], dtype=torch.float64)
    c = network.time[2](nn.functional.silu(naive_linear(network.time[0], time)))
    if t is not None:
        c = c + naive_linear(network.text, t)
    x = naive_linear(network.latent, x)
    for block in network.blocks:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = block.ada_ln(nn.functional.silu(c)).split(D)
        token = naive_norm(x, 1e-6) * (1 + scale_1) + shift_1
        value = block.attn.in_proj_weight[2 * D :] @ token + block.attn.in_proj_bias[2 * D :]
        x = x + gate_1 * naive_linear(block.attn.out_proj, value)
        hidden = naive_linear(block.mlp.c_fc, naive_norm(x, 1e-6) * (1 + scale_2) + shift_2)
        x = x + gate_2 * naive_linear(block.mlp.c_proj, nn.functional.gelu(hidden, approximate="tanh"))
    shift, scale = network.final.ada_ln(nn.functional.silu(c)).split(D)
    return naive_linear(network.final.linear, naive_norm(x, 1e-6) * (1 + scale) + shift)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("start", ["raw", "normalised"])
def test_the_fixed_prior_is_equation_3(training: bool, start: str) -> None:
    head = build("fixed-prior", sigma=0.5, start=start).train(training)
    t = rows(1).double()
    torch.manual_seed(7)
    found = head(t)
    noise = torch.randn(B, D, generator=draws(training)).double()
    for row in range(B):
        begin = norm_1(t[row]) if start == "normalised" else t[row]
        assert torch.allclose(found[row], begin + 0.5 * noise[row], atol=1e-12)
    assert torch.equal(head(t), found) is not training


def test_the_fixed_priors_noise_has_its_deviation() -> None:
    many = rows(1, 4000)
    for sigma in (0.1**0.5, 1.0):
        added = build("fixed-prior", sigma=sigma).train()(many) - many
        assert added.std().item() == pytest.approx(sigma, rel=0.02)
        assert abs(added.mean().item()) < 0.02 * sigma
        assert added.flatten()[:-1].dot(added.flatten()[1:]).abs().item() / added.numel() < 0.02 * sigma**2


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("condition", [None, "none"])
@torch.no_grad()
def test_reverse_diffusion_is_equation_7(training: bool, condition: str | None) -> None:
    head = diffusion(condition=condition).double().train(training)
    t = rows(1).double()
    torch.manual_seed(7)
    found = head(t)
    source = draws(training)
    delta = torch.randn(B, D, generator=source).double()
    for k in range(STEPS, 0, -1):
        alpha, beta = 1 - BETAS[k - 1], BETAS[k - 1]
        for row in range(B):
            text = None if condition else math.sqrt(D) * norm_1(t[row])
            predicted = naive_eps(head.network, delta[row], k, text)
            delta[row] = (delta[row] - (1 - alpha) / math.sqrt(1 - abar(k)) * predicted) / math.sqrt(alpha)
        if k > 1:
            delta = delta + math.sqrt(beta) * torch.randn(B, D, generator=source).double()
    for row in range(B):
        wanted = norm_1(t[row]) + delta[row] / math.sqrt(D)
        assert torch.allclose(found[row], wanted, rtol=1e-6, atol=1e-6)
    assert torch.equal(head(t), found) is not training


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["l1", "l2"])
@torch.no_grad()
def test_the_gaps_loss_is_equation_6(training: bool, kind: Literal["l1", "l2"]) -> None:
    head = diffusion().double().train(training)
    t, v = rows(1).double(), rows(2).double()
    torch.manual_seed(7)
    found = head.loss(t, v, kind)
    source = draws(training)
    steps = torch.randint(STEPS, (B,), generator=source) + 1
    noise = torch.randn(B, D, generator=source).double()
    terms = []
    for row, k in enumerate(steps.tolist()):
        text, video = math.sqrt(D) * norm_1(t[row]), math.sqrt(D) * norm_1(v[row])
        latent = math.sqrt(abar(k)) * (video - text) + math.sqrt(1 - abar(k)) * noise[row]
        difference = noise[row] - naive_eps(head.network, latent, k, text)
        terms += [abs(x) if kind == "l1" else x * x for x in difference.tolist()]
    assert found.item() == pytest.approx(sum(terms) / len(terms), abs=1e-6)
    assert len(set(steps.tolist())) > 1


def test_the_steps_of_the_loss_are_uniform() -> None:
    """A fresh network predicts 0; with a gap of 0 nothing else is in the loss, so the draws of k are counted apart."""
    head = diffusion(redrawn=False).train()
    seen: list[Tensor] = []
    head.network.time.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    text = rows(1, 4000)
    assert head.loss(text, text, "l2").item() == pytest.approx(1.0, abs=0.03)  # E eps^2
    k = [(head.time_features - features).abs().sum(dim=-1).argmin().item() for features in seen[0]]
    shares = [k.count(step) / len(k) for step in range(STEPS)]
    assert shares == pytest.approx([1 / STEPS] * STEPS, abs=0.03)


def test_stage_a_trains_the_head_alone() -> None:
    head = diffusion().train()
    text, video = rows(1).requires_grad_(), rows(2).requires_grad_()
    head.loss(text, video, "l2").backward()
    assert text.grad is None
    assert video.grad is None
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_stage_b_reaches_the_text_and_every_parameter() -> None:
    head = diffusion().train()
    text = rows(1).requires_grad_()
    head(text)[:, 0].sum().backward()
    assert text.grad is not None
    assert text.grad.any(dim=-1).all()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


@torch.no_grad()
def test_a_perfect_network_finds_the_gap() -> None:
    """When eps_gamma knows the gap, the last step of equation 7 (no noise) gives it back: t + (v - t) = v."""
    head = diffusion().double()
    t, v = rows(1).double(), rows(2).double()
    gap = math.sqrt(D) * torch.stack([norm_1(b) - norm_1(a) for a, b in zip(t, v, strict=True)])
    k = iter(range(STEPS, 0, -1))

    def oracle(latents: Tensor, _: Any) -> Tensor:
        step = next(k)
        return (latents - math.sqrt(abar(step)) * gap) / math.sqrt(1 - abar(step))

    head.network.forward = oracle
    assert torch.allclose(head(t), torch.stack([norm_1(row) for row in v]), atol=1e-9)


@pytest.mark.parametrize("start", ["raw", "normalised"])
@torch.no_grad()
def test_the_mlp_agrees_with_a_loop(start: str) -> None:
    head = build("mlp", start=start, blocks=3).double()
    t = rows(1).double()
    found = head(t)
    for row in range(B):
        begin = norm_1(t[row]) if start == "normalised" else t[row]
        x = naive_linear(head.first, begin)
        for block in head.blocks:
            hidden = naive_linear(block.mlp[0], naive_norm(x, 1e-5) * block.norm.weight + block.norm.bias)
            hidden = torch.tensor([h / 2 * (1 + math.erf(h / math.sqrt(2))) for h in hidden.tolist()]).double()
            x = x + naive_linear(block.mlp[2], hidden)
        assert torch.allclose(found[row], begin + naive_linear(head.last, x), atol=1e-6)


@pytest.mark.parametrize("start", ["raw", "normalised"])
@torch.no_grad()
def test_a_redrawn_mlp_moves_its_input(start: Literal["raw", "normalised"]) -> None:
    torch.manual_seed(0)
    head = ResidualMlp(64, AlignmentConfig(kind="mlp", start=start))
    redraw_zero_parameters(head, seed=1)
    t = torch.randn(20, 64, generator=torch.Generator().manual_seed(1))
    moved = head(t)
    assert torch.cosine_similarity(moved, t).max() < 0.7
    assert (moved.norm(dim=-1) < 10 * (1.0 if start == "normalised" else 8.0)).all()  # moved, not thrown
    assert (moved / moved.norm(dim=-1, keepdim=True)).std(dim=0).min() > 0.05  # and it still depends on the text


@pytest.mark.parametrize(("width", "blocks", "ratio"), [(512, 4, 4.0), (512, 1, 1.0), (64, 2, 4.0), (768, 6, 2.5)])
def test_the_mlp_has_the_samplers_size(width: int, blocks: int, ratio: float) -> None:
    with torch.device("meta"):
        mlp = ResidualMlp(width, AlignmentConfig(kind="mlp", blocks=blocks, mlp_ratio=ratio))
        sampler = AlignmentNetwork(width, AlignmentConfig(kind="dits", blocks=blocks, mlp_ratio=ratio))
    sizes = [sum(parameter.numel() for parameter in module.parameters()) for module in (mlp, sampler)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.005)
    assert len(mlp.blocks) == blocks


def test_a_fresh_mlp_is_the_identity_and_its_gradients_reach_all() -> None:
    t = rows(1)
    assert torch.equal(build("mlp", redrawn=False)(t), t)
    head = build("mlp")
    head(t).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


@pytest.mark.parametrize("kind", ["mlp", "diffusion", "fixed-prior"])
@torch.no_grad()
def test_evaluation_repeats_itself_and_leaves_the_global_generator_alone(kind: str) -> None:
    head, t = build(kind), rows(1)
    before = torch.get_rng_state()
    assert torch.equal(head(t), head(t))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.cosine_similarity(head(t), t).min() < 0.95


@torch.no_grad()
def test_samples_never_mix() -> None:
    """Draws belong to rows, so a row that changes moves no other one."""
    for head in (build("mlp"), diffusion(), build("fixed-prior")):
        t = rows(1)
        changed = t.clone()
        changed[2] = 5.0
        first, second = head(t), head(changed)
        others = torch.arange(B) != 2
        scale = float(first.abs().max())
        assert torch.allclose(first[others], second[others], rtol=0, atol=1e-5 * scale)
        assert not torch.allclose(first[2], second[2], rtol=0, atol=1e-2 * scale)


BACKBONE = {
    "embed_dim": D,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 16, "head_width": 16},
    "text_cfg": {"width": 16, "heads": 1, "layers": 1},
}


def model(kind: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    alignment = AlignmentConfig(kind=kind, **settings)  # type: ignore[arg-type]
    made = RetrievalModel(ModelConfig.from_backbone(BackboneConfig.from_open_clip(BACKBONE), alignment=alignment))
    redraw_zero_parameters(made, seed=0)
    return made.eval()


@pytest.mark.parametrize(
    ("kind", "settings", "text", "video"),
    [
        ("none", {}, None, None),
        ("fixed-prior", {}, FixedPrior, None),
        ("diffusion", {"heads": 4}, GapDiffusion, None),
        ("mlp", {}, ResidualMlp, None),
    ],
)
def test_heads_stand_behind_the_text(kind: str, settings: dict[str, Any], text: Any, video: Any) -> None:
    made = model(kind, **settings)
    assert type(made.text.alignment) is (text or type(None))
    assert type(made.video.alignment) is (video or type(None))
    ids = torch.tensor([[49406, 320, 49407], [49406, 530, 49407]], dtype=torch.int32)
    with torch.no_grad():
        stages = made.text.stages(ids)
        assert list(stages) == [*made.text.inner_stages, "aligned"] == ["text_embedding", "aligned"]
        assert torch.equal(stages["aligned"], made.text.align(stages["text_embedding"]))
        assert torch.allclose(stages["aligned"].norm(dim=-1), torch.ones(2), atol=1e-6)
    cosine = torch.cosine_similarity(stages["aligned"], stages["text_embedding"]).min().item()
    assert cosine > 1 - 1e-6 if text is None else cosine < 0.95


@torch.no_grad()
def test_the_sampler_of_the_reversed_gap_stands_behind_the_video() -> None:
    made = model("dits", heads=4, steps=3, gap="t-v")
    assert made.text.alignment is None
    sampler = made.video.alignment
    frames = torch.randint(0, 256, (B, 12, 16, 16, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mask = torch.arange(12) < torch.tensor([[12], [1], [5], [7], [2]])
    stages = made.video.stages(frames, mask)
    names = ["frame_embeddings", "sampler_step_3", "sampler_step_2", "sampler_step_1", "video_embedding"]
    assert list(stages) == [*made.video.inner_stages, "video_embedding"] == names
    features = made.video.encode_frames(frames)
    unaligned, per_frame = made.video.temporal(features, mask)
    video, frames_of_embed = made.video.embed(features, mask)
    assert torch.equal(video, stages["video_embedding"])
    assert torch.equal(frames_of_embed, stages["frame_embeddings"])
    assert torch.equal(per_frame, frames_of_embed)  # frames are not aligned
    walk = sampler.trajectory(unaligned)
    assert torch.allclose(walk[0], unaligned, atol=1e-6)
    for name, latent in zip(names[1:4], walk[1:], strict=True):
        assert torch.equal(stages[name], latent)
    for row in range(B):
        assert torch.allclose(video[row], norm_1(walk[-1][row]), atol=1e-6)
    assert torch.cosine_similarity(video, unaligned).max() < 0.7


@torch.no_grad()
def test_a_video_tower_without_alignment_is_its_temporal_head() -> None:
    made = model("none")
    features, mask = torch.randn(B, 12, D), torch.ones(B, 12, dtype=torch.bool)
    for found, wanted in zip(made.video.embed(features, mask), made.video.temporal(features, mask), strict=True):
        assert torch.equal(found, wanted)
