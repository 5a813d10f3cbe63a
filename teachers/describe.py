"""Pictures in words, for teachers that cannot see: object tags, colours, and the text in the picture.

The way of ITA (Wang et al., NAACL 2022, "ITA: Image-Text Alignments for Multi-Modal Named Entity
Recognition"): what the picture shows is written as tags, caption and OCR beside the text. Here the tags are
ImageNet classes of EfficientNet-Lite0, which knows things, animals and food but neither people nor logos;
each stands with its probability. There is no captioner among the packaged models: the colours, which products
are often asked for, take its place.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..models.packaged import folder
from ..models.torchvision_guard import guard
from ..tasks.images import Image
from ..tasks.record import Record
from .colours import dominant_colours

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

#: Raised when a change alters descriptions; kept descriptions of another version are made anew.
VERSION = 1
#: Tags less probable than this are left out: below, they are guesses about a thing that has no class.
LEAST_TAG = 0.25
#: Recognised lines less certain than this are left out.
LEAST_OCR = 0.75


class Tag(Record):
    """An ImageNet class and its probability."""

    name: str
    probability: float


class Description(Record):
    """A picture in words. Any part may be empty: nothing recognised, no text, which `text` says as well."""

    tags: tuple[Tag, ...] = ()
    colours: tuple[str, ...] = ()
    ocr: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """One line for a prompt."""
        tags = ", ".join(f"{t.name} ({t.probability:.0%})" for t in self.tags) or "nothing recognised"
        colours = ", ".join(self.colours) or "none"
        ocr = f'"{" / ".join(self.ocr)}"' if self.ocr else "none"
        return f"Objects: {tags}. Colours: {colours}. Text in the picture: {ocr}."


class Describer:
    """Describes pictures; its models are loaded with the first one, its answers kept by the picture's hash.

    Args:
        kept: a folder where descriptions are kept between runs; not kept if None.
    """

    def __init__(self, kept: Path | None = None) -> None:
        self.kept = kept

    def describe(self, image: Image) -> Description:
        """The picture in words.

        Raises:
            ImageFault: the picture is missing or broken.
            ModelNotFound: the tagger's package is not installed.
        """
        path = self.kept / f"{image.sha256()}.v{VERSION}.json" if self.kept else None
        if path and path.is_file():
            return Description.model_validate_json(path.read_bytes())
        picture = image.open()
        found = Description(tags=self._tags(picture), colours=dominant_colours(picture), ocr=self._ocr(picture))
        if path:
            _write(path, found.model_dump_json())
        return found

    def _tags(self, picture: PILImage) -> tuple[Tag, ...]:
        import torch

        model, transform, names = self._tagger
        with torch.inference_mode():
            shares = model(transform(picture)[None]).softmax(-1)[0]
        best = shares.topk(3)
        return tuple(
            Tag(name=names[i], probability=round(p, 3))
            for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            if p >= LEAST_TAG
        )

    @cached_property
    def _tagger(self) -> tuple[Any, Any, list[str]]:
        """EfficientNet-Lite0, its preprocessing, and the class names."""
        guard()
        import timm
        import torch
        from timm.data import ImageNetInfo, create_transform

        weights = next(folder("efficientnet-lite0").glob("*.pth"))
        theirs = torch.load(weights, map_location="cpu", weights_only=True)
        model = timm.create_model("tf_efficientnet_lite0").eval()
        ours = model.state_dict()
        # The package's tensors have other names, but the order and the shapes of timm's.
        model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
        transform = create_transform(224, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_pct=0.875)
        info = ImageNetInfo()
        # The first of a class's synonyms is enough ("clog, geta, patten, sabot").
        return model, transform, [info.index_to_description(i).split(",")[0] for i in range(1000)]

    def _ocr(self, picture: PILImage) -> tuple[str, ...]:
        found = self._reader(np.asarray(picture)[:, :, ::-1])  # it takes an array as BGR
        lines = zip(found.txts or (), found.scores or (), strict=True)
        return tuple(text.strip() for text, score in lines if score >= LEAST_OCR and text.strip())

    @cached_property
    def _reader(self) -> Any:
        import torch
        from rapidocr import RapidOCR

        threads = "EngineConfig.onnxruntime.intra_op_num_threads"
        return RapidOCR(params={"Global.log_level": "error", threads: torch.get_num_threads()})


@cache
def _default() -> Describer:
    return Describer()


def describe(image: Image) -> Description:
    """The picture in words, by a describer that this process shares and that keeps nothing on disk."""
    return _default().describe(image)


def _write(path: Path, text: str) -> None:
    """Write in one step, so that no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(name, path)
