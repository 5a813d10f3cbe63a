"""Image encoders by name, against the libraries' own outputs."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from magister.models import packaged
from magister.models.torchvision_guard import guard
from magister.students.encoders.image import ImageEncoder
from magister.tasks.images import Image, ImageFault
from PIL import Image as Pillow

guard()

lite0 = pytest.mark.skipif(
    not packaged.available("efficientnet-lite0"), reason="the package of EfficientNet-Lite0 is not installed"
)


def picture(seed: int = 0, size: tuple[int, int] = (90, 70)) -> Image:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (size[1] // 10, size[0] // 10, 3), generator=generator, dtype=torch.uint8)
    data = io.BytesIO()
    Pillow.fromarray(pixels.numpy()).resize(size, Pillow.Resampling.BILINEAR).save(data, "PNG")
    return Image.of_bytes(data.getvalue(), example=f"picture {seed}")


def cells(feature_map: torch.Tensor) -> torch.Tensor:
    """The means of the four quarters of ``[B, C, h, w]`` (even sides), row by row."""
    half = feature_map.shape[-1] // 2
    quarters = [
        feature_map[..., y, x] for y in (slice(half), slice(half, None)) for x in (slice(half), slice(half, None))
    ]
    return torch.stack([q.mean((-2, -1)) for q in quarters], 1)


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return ImageEncoder("efficientnet-lite0")


@lite0
def test_lite0_has_the_packaged_weights(encoder: ImageEncoder) -> None:
    """Tensor by tensor; and the pyramid is made of timm's own stages."""
    (file,) = packaged.folder("efficientnet-lite0").glob("*.pth")
    weights = list(torch.load(file, weights_only=True).values())
    own = list(encoder.network.state_dict().values())
    assert len(own) == len(weights) == 296
    assert all(torch.equal(a, b) for a, b in zip(own, weights, strict=True))
    assert encoder.levels == [(4, 24), (4, 40), (4, 112), (4, 320), (1, 1280)]
    images = [picture(0), picture(1)]
    found = encoder.encode(images)
    assert [tuple(f.shape) for f in found] == [(2, *level) for level in encoder.levels]
    pixels = torch.stack([encoder.preprocess(i) for i in images])
    network: Any = encoder.network
    with torch.no_grad():
        last, stages = network.forward_intermediates(pixels)
    for level, stage in zip(found[:3], stages[1:4], strict=True):
        torch.testing.assert_close(level, cells(stage))
    torch.testing.assert_close(found[4][:, 0], last.mean((2, 3)))


@lite0
def test_lite0_preprocessing(encoder: ImageEncoder) -> None:
    """Shorter side to 256 by bicubic, the middle 224, values from -1 to 1."""
    image = picture(3, (400, 300))
    resized = image.open().resize((341, 256), Pillow.Resampling.BICUBIC)
    middle = resized.crop((58, 16, 58 + 224, 16 + 224))
    expected = torch.tensor(list(middle.getdata())).view(224, 224, 3).permute(2, 0, 1) / 255 * 2 - 1
    found = encoder.preprocess(image)
    assert found.shape == (3, 224, 224)
    assert (found - expected).abs().mean() < 0.01


@lite0
def test_lite0_knows_a_banana(encoder: ImageEncoder) -> None:
    import timm

    root = Path(os.environ.get("MAGISTER_DATA", Path(__file__).parents[3] / "shared" / "data"))
    file = root / "mae/grocery_store/iconic/Banana.jpg"
    if not file.is_file():
        pytest.skip("needs the photo of a banana in the Grocery Store data")
    with torch.no_grad():
        scores = encoder.network(encoder.preprocess(Image(source=str(file)))[None])
    assert timm.data.ImageNetInfo().index_to_description(int(scores.argmax())) == "banana"


@lite0
def test_frozen_means_constant(encoder: ImageEncoder) -> None:
    pixels = torch.stack([encoder.preprocess(picture(s)) for s in range(2)])
    before = encoder(pixels)
    encoder.train()
    assert not any(m.training for m in encoder.modules())
    again = encoder(pixels)
    assert all(torch.equal(a, b) for a, b in zip(before, again, strict=True))
    assert not any(f.requires_grad for f in again)
    assert not any(p.requires_grad for p in encoder.parameters())
    alone = encoder(pixels[:1])
    assert all(torch.allclose(a[:1], b, atol=1e-5) for a, b in zip(before, alone, strict=True))


@lite0
def test_identity_tells_encoders_apart(encoder: ImageEncoder) -> None:
    assert encoder.identity() == ImageEncoder("efficientnet-lite0").identity()
    torch.manual_seed(0)
    other = ImageEncoder("timm:tf_efficientnet_lite0", pretrained=False)
    assert other.identity() != encoder.identity()
    assert "/" not in encoder.identity()
    first = other.identity()
    del other.__dict__["_identity"]
    with torch.no_grad():
        next(other.network.parameters()).view(-1)[0] += 1e-3
    assert other.identity() != first
    with pytest.raises(ValueError, match="must not be cached"):
        ImageEncoder("timm:resnet18", trainable=True, pretrained=False).identity()


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("timm:resnet18", [(4, 64), (4, 128), (4, 256), (4, 512)]),
        ("timm:mobilenetv3_small_050", [(4, 8), (4, 16), (4, 24), (4, 288), (1, 1024)]),
        ("timm:vit_tiny_patch16_224", [(4, 192)] * 4 + [(1, 192)]),
        ("timm:convnext_atto", [(4, 40), (4, 80), (4, 160), (4, 320)]),
    ],
)
def test_timm(name: str, levels: list[tuple[int, int]]) -> None:
    encoder = ImageEncoder(name, pretrained=False)
    assert encoder.levels == levels
    assert [tuple(f.shape) for f in encoder.encode([picture()])] == [(1, *level) for level in levels]


def test_trainable_learns() -> None:
    encoder = ImageEncoder("timm:resnet18", trainable=True, pretrained=False).train()
    assert all(m.training for m in encoder.modules())
    sum(f.square().mean() for f in encoder(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for n, p in encoder.network.named_parameters() if not n.startswith("fc"))


def test_open_clip() -> None:
    """The vision part of a CLIP alone, its image embedding as the last level."""
    encoder = ImageEncoder("open_clip:ViT-B-32-quickgelu", pretrained=False)
    assert encoder.levels == [(4, 768)] * 4 + [(1, 512)]
    assert not any("text" in n or "token_embedding" in n for n, _ in encoder.named_parameters())
    pixels = encoder.preprocess(picture())[None]
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels)[-1][:, 0], encoder.network(pixels), rtol=1e-4, atol=1e-5)
    with pytest.raises(packaged.ModelNotFound, match="weights named"):
        ImageEncoder("open_clip:ViT-B-32")


def save_vit(folder: Path) -> Any:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 16}
    model = ViTModel(ViTConfig(**size, image_size=32, patch_size=8)).eval()
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return model


def test_transformers_vit(tmp_path: Path) -> None:
    model = save_vit(tmp_path)
    encoder = ImageEncoder(f"hf:{tmp_path}")
    assert encoder.levels == [(4, 16)] * 4 + [(1, 16)]
    pixels = encoder.preprocess(picture())[None]
    assert pixels.shape == (1, 3, 32, 32)
    with torch.no_grad():
        output = model(pixel_values=pixels, output_hidden_states=True)
        found = encoder(pixels)
    for level, at in zip(found[:4], (0, 1, 2, 4), strict=True):  # of the five blocks
        patches = output.hidden_states[at + 1][:, 1:].transpose(1, 2).view(1, 16, 4, 4)
        torch.testing.assert_close(level, cells(patches))
    torch.testing.assert_close(found[4][:, 0], output.pooler_output)


def test_transformers_clip_and_cnn(tmp_path: Path) -> None:
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPTextConfig,
        CLIPVisionConfig,
        ConvNextImageProcessor,
        ResNetConfig,
        ResNetModel,
    )

    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    vision = CLIPVisionConfig(**size, image_size=32, patch_size=8)
    CLIPModel(CLIPConfig(text_config=CLIPTextConfig(**size, vocab_size=9), vision_config=vision)).save_pretrained(
        tmp_path / "clip"
    )
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(tmp_path / "clip")
    encoder = ImageEncoder(f"hf:{tmp_path / 'clip'}")
    assert encoder.levels == [(4, 16), (4, 16), (1, 16)]
    assert not any("text" in n for n, _ in encoder.named_parameters())
    assert encoder.encode([picture()])[0].shape == (1, 4, 16)
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4)).save_pretrained(
        tmp_path / "resnet"
    )
    ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(tmp_path / "resnet")
    assert ImageEncoder(f"hf:{tmp_path / 'resnet'}").levels == [(4, 8), (4, 16), (4, 24), (4, 32)]


def test_lora_by_peft(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    save_vit(tmp_path)
    encoder = ImageEncoder(f"hf:{tmp_path}", trainable=True)
    plain = [f.detach() for f in encoder.encode([picture()])]
    config = LoraConfig(r=2, target_modules="all-linear")
    encoder.network = get_peft_model(encoder.network, config)  # type: ignore[assignment,arg-type]
    found = encoder.encode([picture()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, found, strict=True))
    F.mse_loss(found[0], torch.zeros_like(found[0])).backward()
    learning = [n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.any()]
    assert learning
    assert all("lora" in n for n in learning)


@lite0
def test_bad_input_is_named(encoder: ImageEncoder, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(ImageFault, match=r"example tweet 7: image .*broken\.jpg"):
        encoder.encode([picture(), Image(source=str(broken), example="tweet 7")])
    assert [tuple(f.shape) for f in encoder.encode([])] == [(0, *level) for level in encoder.levels]
    for name in ("resnet18", "timm:", "clip:ViT"):
        with pytest.raises(packaged.ModelNotFound, match="efficientnet-lite0, timm:NAME"):
            ImageEncoder(name)
