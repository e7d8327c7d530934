"""CLIP's towers, written for export. Parameter names equal those of open_clip.CLIP, with `visual.` taken off."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtr_runtime.errors import CheckpointError

from .attention import Transformer, attend, causal_mask
from .config import BackboneConfig, TextConfig, VisionConfig


class VisionTransformer(nn.Module):
    """Normalised pixels [N, 3, S, S] -> features [N, D]: the class token after the last block."""

    def __init__(self, config: VisionConfig, embed_dim: int, *, quick_gelu: bool) -> None:
        super().__init__()
        assert isinstance(config.layers, int)
        assert config.patch_size is not None
        width, patch = config.width, config.patch_size
        self.width, self.patches = width, (config.image_size // patch) ** 2
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(self.patches + 1, width) * width**-0.5)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.layers, config.heads, config.mlp_ratio, quick_gelu=quick_gelu)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, embed_dim) * width**-0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.project(self.transformer(self.embed(pixels))[:, 0])

    def embed(self, pixels: Tensor) -> Tensor:
        """What the first block sees: [N, 1 + patches, width], the class token first."""
        tokens = self.conv1(pixels).reshape(-1, self.width, self.patches).permute(0, 2, 1)
        return self.ln_pre(F.pad(tokens, (0, 0, 1, 0)) + self.token_table())  # type: ignore[no-any-return]

    def token_table(self) -> Tensor:
        """What is added to a row of zeros and the patches: the class token and all positions, [1 + patches, width].

        So a graph has one Pad and one Add of a constant instead of Expand and Concat."""
        return torch.cat([self.positional_embedding[:1] + self.class_embedding, self.positional_embedding[1:]])

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens [N, width] of the last block -> features [N, D]."""
        return self.ln_post(tokens) @ self.proj  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """A residual block that shrinks by average pooling, never by stride."""

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.shrink = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes))
            if stride > 1 or channels != 4 * planes
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(self.shrink(y)))
        return F.relu(y + self.downsample(self.shrink(x)))


class AttentionPool2d(nn.Module):
    """The mean token asks all places of the map [N, C, g, g] and itself: -> [N, D]."""

    def __init__(self, grid: int, width: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.places, self.width, self.heads = grid * grid, width, heads
        self.positional_embedding = nn.Parameter(torch.randn(self.places + 1, width) * width**-0.5)
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embed_dim)
        for layer in (self.k_proj, self.q_proj, self.v_proj, self.c_proj):
            nn.init.normal_(layer.weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, self.width, self.places).permute(0, 2, 1)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self.positional_embedding
        # Only the mean token's answer is read, so only its query is asked.
        seen = attend(
            self._by_head(self.q_proj(tokens[:, :1]), 1),
            self._by_head(self.k_proj(tokens), self.places + 1),
            self._by_head(self.v_proj(tokens), self.places + 1),
        )
        return self.c_proj(seen.reshape(-1, self.width))  # type: ignore[no-any-return]

    def _by_head(self, x: Tensor, length: int) -> Tensor:
        return x.reshape(-1, length, self.heads, self.width // self.heads).transpose(1, 2)


class ModifiedResNet(nn.Module):
    """Normalised pixels [N, 3, S, S] -> features [N, D]: three-layer stem, anti-aliased stages, attention pool."""

    def __init__(self, config: VisionConfig, embed_dim: int) -> None:
        super().__init__()
        assert not isinstance(config.layers, int)
        width = config.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, config.layers[0], stride=1)
        self.layer2 = _stage(4 * width, 2 * width, config.layers[1], stride=2)
        self.layer3 = _stage(8 * width, 4 * width, config.layers[2], stride=2)
        self.layer4 = _stage(16 * width, 8 * width, config.layers[3], stride=2)
        self.attnpool = AttentionPool2d(config.image_size // 32, 32 * width, config.heads, embed_dim)
        for module in self.modules():
            # So that the signal of an untrained stack neither dies out, as by PyTorch's own default, nor explodes.
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, Bottleneck):
                nn.init.constant_(module.bn3.weight, 0.25)

    def forward(self, pixels: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(pixels)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.avg_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.attnpool(x)  # type: ignore[no-any-return]


def _stage(channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(channels, planes, stride)
    return nn.Sequential(first, *(Bottleneck(4 * planes, planes, 1) for _ in range(blocks - 1)))


class TextTransformer(nn.Module):
    """ids int32 [B, L], L from 2 to the context length -> projection [B, D] of the first end-of-text token."""

    def __init__(self, config: TextConfig, embed_dim: int, *, quick_gelu: bool, end_id: int) -> None:
        super().__init__()
        self.end_id = end_id
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positional_embedding = nn.Parameter(torch.randn(config.context_length, config.width) * 0.01)
        self.transformer = Transformer(
            config.width, config.layers, config.heads, config.mlp_ratio, quick_gelu=quick_gelu
        )
        self.ln_final = nn.LayerNorm(config.width)
        self.text_projection = nn.Parameter(torch.randn(config.width, embed_dim) * config.width**-0.5)
        self.attn_mask: Tensor
        self.register_buffer("attn_mask", causal_mask(config.context_length), persistent=False)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.project(self.at_end(self.hidden(input_ids), input_ids))

    def with_words(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The same beside the projection of every token [B, L, D]."""
        tokens = self.project(self.hidden(input_ids))
        return self.at_end(tokens, input_ids), tokens

    def hidden(self, input_ids: Tensor) -> Tensor:
        """What the last block gives: [B, L, width]."""
        return self.transformer(self.embed(input_ids), self.mask(input_ids))  # type: ignore[no-any-return]

    def embed(self, input_ids: Tensor) -> Tensor:
        """What the first block sees: [B, L, width]."""
        return self.token_embedding(input_ids) + self.positional_embedding[: input_ids.shape[1]]  # type: ignore[no-any-return]

    def mask(self, input_ids: Tensor) -> Tensor:
        """The additive causal mask [L, L]."""
        length = input_ids.shape[1]
        return self.attn_mask[:length, :length]

    def project(self, hidden: Tensor) -> Tensor:
        return self.ln_final(hidden) @ self.text_projection  # type: ignore[no-any-return]

    def end_positions(self, input_ids: Tensor) -> Tensor:
        """int64 [B]: where the first end-of-text token of each row stands."""
        # Found by equality, not as the highest id, and on int32: argmax takes the first of equals, and not every engine
        # has it for int64.
        return (input_ids == self.end_id).to(torch.int32).argmax(dim=1)

    def word_mask(self, input_ids: Tensor) -> Tensor:
        """bool [B, L]: the tokens strictly between start and end; the end token alone where there is none."""
        end = self.end_positions(input_ids)[:, None]
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        return ((place > 0) & (place < end)) | ((place == end) & (end <= 1))

    def at_end(self, tokens: Tensor, input_ids: Tensor) -> Tensor:
        """Of tokens [B, L, width] the row of each sentence's first end-of-text token: [B, width]."""
        return tokens[torch.arange(input_ids.shape[0], device=input_ids.device), self.end_positions(input_ids)]


def build_image_tower(config: BackboneConfig) -> VisionTransformer | ModifiedResNet:
    if isinstance(config.vision.layers, int):
        return VisionTransformer(config.vision, config.embed_dim, quick_gelu=config.quick_gelu)
    return ModifiedResNet(config.vision, config.embed_dim)


_NOT_WEIGHTS = frozenset({"attn_mask", "input_resolution", "context_length", "vocab_size"})


def load_open_clip_state_dict(
    visual: nn.Module, text: nn.Module, state_dict: Mapping[str, Tensor], *, prefix: str = ""
) -> Tensor:
    """Load the weights of open_clip.CLIP or CustomTextCLIP, of any floating type, and return the logit scale (log, []).

    Raises CheckpointError when a weight is missing, unexpected or of another shape, its name with `prefix` before it,
    as it stands in the file."""
    parts: dict[str, dict[str, Tensor]] = {"visual.": {}, "": {}}
    for name, value in state_dict.items():
        name = name.removeprefix("module.").removeprefix("text.")
        if name not in _NOT_WEIGHTS:
            tower = "visual." if name.startswith("visual.") else ""
            parts[tower][name.removeprefix(tower)] = value.float() if value.is_floating_point() else value
    logit_scale = parts[""].pop("logit_scale", torch.empty(0))
    if logit_scale.numel() != 1:
        raise CheckpointError(
            f"the weights have no {prefix}logit_scale of one value; give the whole weights of a CLIP model"
        )
    for tower, module in (("visual.", visual), ("", text)):
        mismatch = describe_mismatch(module.state_dict(), parts[tower], prefix + tower)
        if mismatch:
            raise CheckpointError(f"the weights are of another model: {mismatch}; check the model's name")
        module.load_state_dict(parts[tower])
    return logit_scale.reshape(())


def describe_mismatch(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], prefix: str = "") -> str | None:
    """What first tells two sets of weights apart, in words; None when names and shapes agree."""
    for missing in sorted(wanted.keys() - given.keys()):
        return f"{prefix}{missing} is missing"
    for unexpected in sorted(given.keys() - wanted.keys()):
        return f"{prefix}{unexpected} is unexpected"
    for name, value in wanted.items():
        if given[name].shape != value.shape:
            return f"{prefix}{name} has shape {list(given[name].shape)} instead of {list(value.shape)}"
    return None
