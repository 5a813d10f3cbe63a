"""Image encoders by name, and the pyramid of features at several depths that the visual prefix reads."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.packaged import ModelNotFound, folder
from ...models.torchvision_guard import guard
from ...tasks.images import Image

#: Depths that a pyramid takes from a network, as in HVPNeT.
DEPTHS = 4

#: Each depth is pooled to 2 x 2 cells, as in HVPNeT.
GRID = 2

#: Finer feature maps than a quarter of the picture's side hold edges and colours, and are left out.
FINEST_STRIDE = 4


class _Network(NamedTuple):
    """A vision network as its library gives it.

    Attributes:
        model: the network.
        maps: ``(model, pixels [B, 3, H, W], indices or None)`` to the feature maps ``[B, C, h, w]`` at these
            indices (None: at all), and the network's own vector of the whole picture ``[B, C]``, or None.
        preprocess: a PIL picture to ``[3, H, W]``.
        settings: what `preprocess` does, in words that change when it does.
    """

    model: nn.Module
    maps: Callable[[Any, Tensor, list[int] | None], tuple[list[Tensor], Tensor | None]]
    preprocess: Callable[[Any], Tensor]
    settings: str


class ImageEncoder(nn.Module):
    """A pretrained vision network that gives features at several depths.

    The pyramid has up to four depths (the last stages of a CNN, blocks of a ViT at even distances), each
    average-pooled to ``grid x grid`` cells (2 x 2); then, as one more level of one cell, the network's own
    vector of the picture where it has one (a convolution behind the last stage, a CLS token, CLIP's image embedding).

    Args:
        name: ``efficientnet-lite0`` (packaged), ``timm:NAME``, ``open_clip:NAME@WEIGHTS`` (a tag or a file),
            or ``hf:NAME`` (a transformers vision model's name or path; of a CLIP-like pair the vision part).
        trainable: let it learn. Else it stays in eval mode (batch statistics too) and gives constants.
        pretrained: False builds it with random weights.
        grid: cells a side that each depth is pooled to.
        depths: how many depths there are; 1 is the last stage alone.

    Attributes:
        levels: ``(cells, channels)`` of each level.
    """

    def __init__(
        self, name: str, trainable: bool = False, pretrained: bool = True, grid: int = GRID, depths: int = DEPTHS
    ) -> None:
        super().__init__()
        guard()
        self.grid, self.depths = grid, depths
        network = _build(name, pretrained)
        self.name, self.trainable = name, trainable
        self.network, self._maps = network.model.eval().requires_grad_(trainable), network.maps
        self._preprocess, self._settings = network.preprocess, network.settings
        self._indices, self._with_vector, self.levels = self._survey()

    @torch.no_grad()
    def _survey(self) -> tuple[list[int], bool, list[tuple[int, int]]]:
        """Runs a blank picture to see which depths there are: those picked, and the levels they give."""
        from PIL import Image as Pillow

        pixels = self._preprocess(Pillow.new("RGB", (64, 64)))[None]
        maps, vector = self._maps(self.network, pixels, None)
        deep = [i for i, m in enumerate(maps) if pixels.shape[-1] // m.shape[-1] >= FINEST_STRIDE]
        tokens = len(deep) > 1 and maps[deep[0]].shape == maps[deep[-1]].shape
        if tokens and len(deep) > self.depths:
            picked = [deep[len(deep) * (i + 1) // self.depths - 1] for i in range(self.depths)]
        else:
            picked = deep[-self.depths :]
        levels = [(self.grid**2, maps[i].shape[1]) for i in picked]
        # The mean of a CNN's last stage would say nothing that its cells do not.
        own = vector is not None and (tokens or vector.shape[1] != levels[-1][1])
        if own and vector is not None:
            levels.append((1, vector.shape[1]))
        return picked, own, levels

    def preprocess(self, image: Image) -> Tensor:
        """The picture as the network wants it, ``[3, H, W]``; an `ImageFault` if it cannot be used."""
        return self._preprocess(image.open())

    def encode(self, images: Sequence[Image]) -> list[Tensor]:
        """Features of some pictures, in one batch: one ``[B, cells, channels]`` a level, in fp32."""
        if not images:
            return [torch.zeros(0, *level) for level in self.levels]
        device = next(self.network.parameters()).device
        pixels = torch.stack([self.preprocess(image) for image in images])
        features: list[Tensor] = self(pixels.to(device))
        return features

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Features of prepared pictures ``[B, 3, H, W]``: one ``[B, cells, channels]`` a level, in fp32."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trainable):
            maps, vector = self._maps(self.network, pixels, self._indices)
            pooled = [F.adaptive_avg_pool2d(m.float(), self.grid).flatten(2).transpose(1, 2) for m in maps]
            if self._with_vector and vector is not None:
                pooled.append(vector.float()[:, None])
            return pooled

    def train(self, mode: bool = True) -> ImageEncoder:
        """Training mode where it is trainable; a frozen encoder stays in eval mode."""
        super().train(mode and self.trainable)
        return self

    def identity(self) -> str:
        """Name and digest of weights, preprocessing and levels, for whoever keeps this encoder's features."""
        if self.trainable:
            raise ValueError(f"{self.name} is trainable: its features change, so they must not be cached")
        return self._identity

    @cached_property
    def _identity(self) -> str:
        digest = hashlib.sha256(f"{self._settings}{self._indices}{self.levels}".encode())
        for key, value in sorted(self.network.state_dict().items()):
            digest.update(f"{key}{value.dtype}{list(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', self.name)[-60:]}-{digest.hexdigest()[:16]}"


def _build(name: str, pretrained: bool) -> _Network:
    kind, _, rest = name.partition(":")
    if name == "efficientnet-lite0":
        return _lite0(pretrained)
    if kind == "timm" and rest:
        return _timm(rest, pretrained)
    if kind == "open_clip" and rest:
        return _open_clip(*rest.partition("@")[::2], pretrained)
    if kind == "hf" and rest:
        return _transformers(rest, pretrained)
    raise ModelNotFound(
        f"image encoder {name!r}: say efficientnet-lite0, timm:NAME, open_clip:NAME@WEIGHTS, hf:NAME "
        "or, for captions in the place of pictures, caption:TEXT_ENCODER"
    )


def _lite0(pretrained: bool) -> _Network:
    """The packaged weights in timm's network: other names, the same tensors in the same order."""
    network = _timm("tf_efficientnet_lite0", pretrained=False)
    if pretrained:
        (file,) = folder("efficientnet-lite0").glob("*.pth")
        weights, own = torch.load(file, weights_only=True, map_location="cpu"), network.model.state_dict()
        if [v.shape for v in weights.values()] != [v.shape for v in own.values()]:
            raise ModelNotFound(f"{file.name} has not the tensors of timm's tf_efficientnet_lite0, in their order")
        network.model.load_state_dict(dict(zip(own, weights.values(), strict=True)))
    return network


def _timm(name: str, pretrained: bool) -> _Network:
    import timm

    def maps(model: Any, pixels: Tensor, indices: list[int] | None) -> tuple[list[Tensor], Tensor]:
        last, found = model.forward_intermediates(pixels, indices=indices, output_fmt="NCHW")
        return found, model.forward_head(last, pre_logits=True)

    model = timm.create_model(name, pretrained=pretrained)
    settings = timm.data.resolve_model_data_config(model)
    return _Network(model, maps, timm.data.create_transform(**settings, is_training=False), f"timm {settings}")


def _open_clip(name: str, weights: str, pretrained: bool) -> _Network:
    import open_clip

    def maps(model: Any, pixels: Tensor, indices: list[int] | None) -> tuple[list[Tensor], Tensor]:
        found = model.forward_intermediates(pixels, indices=indices, output_fmt="NCHW")
        return found["image_intermediates"], found["image_features"]

    if pretrained and not weights:
        raise ModelNotFound(f"open_clip:{name} needs its weights named: open_clip:{name}@TAG or @FILE.safetensors")
    model, _, preprocess = open_clip.create_model_and_transforms(
        name, pretrained=weights if pretrained else None, load_weights=pretrained
    )
    return _Network(model.visual, maps, preprocess, f"open_clip {open_clip.get_model_preprocess_cfg(model)}")


def _transformers(name: str, pretrained: bool) -> _Network:
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    def maps(model: Any, pixels: Tensor, indices: list[int] | None) -> tuple[list[Tensor], Tensor | None]:
        output = model(pixel_values=pixels, output_hidden_states=True)
        states = output.hidden_states[1:]
        picked = [_as_map(states[i]) for i in (range(len(states)) if indices is None else indices)]
        vector = getattr(output, "pooler_output", None)
        if vector is None and states[-1].dim() == 3:
            vector = output.last_hidden_state[:, 0]
        return picked, None if vector is None else vector.flatten(1)

    config = AutoConfig.from_pretrained(name)
    load = AutoModel.from_pretrained if pretrained else lambda _, config, **__: AutoModel.from_config(config)
    model = load(name, config=config, use_safetensors=True)
    processor = AutoImageProcessor.from_pretrained(name)

    def preprocess(picture: Any) -> Tensor:
        pixels: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"][0]
        return pixels

    settings = json.dumps(processor.to_dict(), sort_keys=True, default=str)
    return _Network(getattr(model, "vision_model", model), maps, preprocess, f"transformers {settings}")


def _as_map(states: Tensor) -> Tensor:
    """Hidden states of patches ``[B, extra + side * side, C]`` as a map ``[B, C, side, side]``."""
    if states.dim() == 4:
        return states
    side = int(states.shape[1] ** 0.5)  # CLS and register tokens stand first
    patches = states[:, states.shape[1] - side * side :]
    return patches.transpose(1, 2).unflatten(2, (side, side))
