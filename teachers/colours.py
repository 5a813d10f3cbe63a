"""The colours of a picture by name: pixels clustered in CIELAB, each cluster named by its nearest shade."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Floats = NDArray[np.float64]

#: Shades (sRGB) by the word that people use for them.
PALETTE = {
    "black": ["101010", "2a2a2a"],
    "grey": ["505050", "808080", "b0b0b0"],
    "silver": ["c8cace"],
    "white": ["f0f0f0", "ffffff"],
    "red": ["c01820", "e03030", "8c1018"],
    "orange": ["f08020", "e86018"],
    "yellow": ["f8d820", "f8e878"],
    "gold": ["c8a040", "b08828"],
    "green": ["208038", "58a840", "184828", "90c870", "48702c"],
    "olive": ["70703c", "505028"],
    "turquoise": ["30b0a8", "187878", "80d8d0"],
    "blue": ["2050c0", "3888e0", "90c0f0", "104890", "1c2c98", "0000ff"],
    "navy": ["182050", "28345c", "000064"],
    "purple": ["6830a0", "9860c8", "402050"],
    "pink": ["f080b0", "f8c0d0", "e03888"],
    "brown": ["704020", "482818", "986038"],
    "beige": ["e0cca8", "c8b088", "f0e4d0"],
}
#: A border is one background if that share of its pixels lies within this distance of its median (CIELAB).
UNIFORM_SHARE, UNIFORM_DISTANCE = 0.7, 10.0
#: A colour with a smaller share of what is not background is left out.
LEAST_SHARE = 0.12


def dominant_colours(picture: PILImage, most: int = 3) -> tuple[str, ...]:
    """Names of up to ``most`` colours, the largest share first; a plain background does not count.

    A picture that is all background (a white shirt on white may come near) is named by all its pixels.
    """
    pixels = to_lab(np.asarray(picture.convert("RGB").resize((64, 64))).reshape(-1, 3) / 255.0)
    frame = np.zeros((64, 64), bool)
    frame[:2] = frame[-2:] = frame[:, :2] = frame[:, -2:] = True
    ground = np.median(pixels[frame.ravel()], axis=0)
    near = np.linalg.norm(pixels - ground, axis=1) < UNIFORM_DISTANCE
    if near[frame.ravel()].mean() >= UNIFORM_SHARE and (~near).mean() >= 0.03:
        pixels = pixels[~near]
    centres, shares = cluster(pixels)
    total: dict[str, float] = {}
    for centre, share in zip(centres, shares, strict=True):
        word = name(centre)
        total[word] = total.get(word, 0.0) + share
    ranked = sorted(total.items(), key=lambda item: -item[1])
    return tuple(word for word, share in ranked[:most] if share >= LEAST_SHARE)


def cluster(pixels: Floats, k: int = 8, steps: int = 10) -> tuple[Floats, Floats]:
    """k-means from a fixed start (each next centre is the pixel farthest from those there are).

    Args:
        pixels: ``[N, 3]``.

    Returns:
        Centres ``[<= k, 3]`` and the share of the pixels in each.
    """
    centres = [np.median(pixels, axis=0)]
    for _ in range(k - 1):
        gap = np.min([np.linalg.norm(pixels - c, axis=1) for c in centres], axis=0)
        if gap.max() < 1e-6:
            break
        centres.append(pixels[gap.argmax()])
    found = np.array(centres)
    for _ in range(steps):
        nearest = np.linalg.norm(pixels[:, None] - found[None], axis=2).argmin(axis=1)
        found = np.array(
            [pixels[nearest == i].mean(axis=0) if (nearest == i).any() else c for i, c in enumerate(found)]
        )
    nearest = np.linalg.norm(pixels[:, None] - found[None], axis=2).argmin(axis=1)
    return found, np.bincount(nearest, minlength=len(found)) / len(pixels)


def name(lab: Floats) -> str:
    """The palette's word for a CIELAB colour ``[3]``."""
    return _WORDS[int(np.linalg.norm(_SHADES - lab, axis=1).argmin())]


def to_lab(rgb: Floats) -> Floats:
    """sRGB in [0, 1] ``[N, 3]`` to CIELAB under D65 (CIE 15:2004; IEC 61966-2-1 for the gamma)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


_WORDS = [word for word, shades in PALETTE.items() for _ in shades]
_SHADES = to_lab(np.array([list(bytes.fromhex(s)) for shades in PALETTE.values() for s in shades]) / 255.0)
