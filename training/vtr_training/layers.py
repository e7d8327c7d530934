"""The blocks of a model's towers, and what training does with them: leaves them be, recomputes or compiles them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vtr_export.model.attention import ResidualBlock
from vtr_export.model.backbone import Bottleneck, ModifiedResNet
from vtr_export.model.retrieval import RetrievalModel
from vtr_runtime.errors import ConfigError

BACKEND = "inductor"


def freeze_layers(model: RetrievalModel, count: int) -> None:
    """Take the embeddings and the first `count` blocks of both towers out of training: no gradient, evaluation mode.

    Embeddings are what the first block sees: a ViT's patches, class token and positions, a ResNet's stem, tokens and
    positions of the text. ConfigError where a tower has fewer blocks."""
    image, text = model.video.backbone, model.text.backbone
    stem: list[nn.Module | nn.Parameter]
    blocks: list[nn.Module]
    if isinstance(image, ModifiedResNet):
        stem = [image.conv1, image.bn1, image.conv2, image.bn2, image.conv3, image.bn3]
        blocks = [block for stage in (image.layer1, image.layer2, image.layer3, image.layer4) for block in stage]
    else:
        stem = [image.conv1, image.class_embedding, image.positional_embedding, image.ln_pre]
        blocks = list(image.transformer.resblocks)
    for tower, found in (("image", blocks), ("text", list(text.transformer.resblocks))):
        if count > len(found):
            raise ConfigError(
                f"optim.freeze_layers is {count} and the {tower} tower has {len(found)} blocks; set it to {len(found)}"
            )
    kept = [
        *stem,
        *blocks[:count],
        text.token_embedding,
        text.positional_embedding,
        *text.transformer.resblocks[:count],
    ]
    for one in kept:
        one.requires_grad_(False)
        if isinstance(one, nn.Module):
            one.eval()


def checkpoint_blocks(model: RetrievalModel) -> None:
    """Let every block keep its input alone and compute the rest again on the way back; the gradient is the same.

    Random draws are repeated. Batch statistics would be counted twice: see gradcache.refuse_batch_statistics."""
    for block in blocks_of(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def blocks_of(model: RetrievalModel) -> list[nn.Module]:
    """All residual blocks of both towers and the temporal head."""
    return [module for module in model.modules() if isinstance(module, ResidualBlock | Bottleneck)]


class CompiledForward:
    """A module's forward, compiled as one graph; what cannot be compiled is an error, never run slowly in silence."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self._name = name
        self._forward = torch.compile(module.forward, fullgraph=True, backend=BACKEND)

    def __call__(self, *given: Tensor) -> Tensor:
        try:
            made: Tensor = self._forward(*given)
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            raise ConfigError(
                f"torch.compile failed on the {self._name} ({str(error).splitlines()[0]}); set compile=false"
            ) from error
        return made


def compile_towers(model: RetrievalModel) -> None:
    """Compile what takes the time: the image tower, and the text tower's blocks. Names of weights stay as they are."""
    for name, module in (("image tower", model.video.backbone), ("text tower", model.text.backbone.transformer)):
        module.forward = CompiledForward(module, name)  # type: ignore[method-assign, assignment]
