"""Makes torchvision importable beside a CPU torch; call `guard` before timm, open_clip or transformers.

PyPI carries CUDA builds of torchvision alone. Beside a CPU torch their C++ library cannot load, no operator
gets registered, and ``import torchvision`` ends with ``operator torchvision::nms does not exist``, since its
Python side attaches fake kernels to two operators that are not there. Worse, peft, timm, open_clip and
transformers see that torchvision is installed, import it and fall with it. Defining the two missing operators
is enough for its transforms and models; `nms` gets a plain CPU kernel, so that detectors run too. What needs
other C++ operators (``roi_pool``, ``deform_conv2d``, ``torchvision.io``) still fails, with torchvision's own
message.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: The operators' definitions live as long as this list does; without the reference torch withdraws them.
_defined: list[torch.library.Library] = []


def guard() -> bool:
    """Define torchvision's missing operators and import it, if its own library cannot load; True if so.

    Does nothing where torchvision is absent, already imported, or loads by itself, and outside Linux (only
    there is PyPI's wheel a CUDA build). May be called any number of times.
    """
    if _defined:
        return True
    if sys.platform != "linux" or "torchvision" in sys.modules:
        return False
    found = find_spec("torchvision")
    if found is None or _library_loads(list(found.submodule_search_locations or [])):
        return False

    import torch

    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", nms, "CPU")
    _defined.append(library)
    import torchvision

    # `torchvision.ops.nms` asks whether the C++ library is there before it calls the operator, which now
    # exists.
    torchvision.ops.boxes._assert_has_ops = lambda: None
    return True


def _library_loads(folders: list[str]) -> bool:
    """Whether torchvision's C++ library loads beside this torch (if so it stays loaded)."""
    import torch

    library = PathFinder.find_spec("_C", folders)
    if library is None or library.origin is None:
        return False
    try:
        torch.ops.load_library(library.origin)
    except OSError:
        return False
    return True


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression: indices of the boxes kept, best score first.

    Args:
        boxes: ``[N, 4]`` corners ``x1, y1, x2, y2``.
        scores: ``[N]``.
        iou_threshold: a box that overlaps a better one by more than this is dropped.
    """
    import torch

    x1, y1, x2, y2 = boxes.unbind(1)
    areas = (x2 - x1) * (y2 - y1)
    order = scores.sort(stable=True, descending=True).indices
    kept = []
    while order.numel():
        best, rest = order[0], order[1:]
        kept.append(best)
        width = (torch.minimum(x2[best], x2[rest]) - torch.maximum(x1[best], x1[rest])).clamp(min=0)
        height = (torch.minimum(y2[best], y2[rest]) - torch.maximum(y1[best], y1[rest])).clamp(min=0)
        shared = width * height
        overlap = shared / (areas[best] + areas[rest] - shared)
        order = rest[~(overlap > iou_threshold)]  # negated, so that 0 / 0 (empty boxes) is kept, as in C++
    return torch.stack(kept) if kept else order
