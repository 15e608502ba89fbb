"""transformers' own Qwen3-VL processor, the oracle of preprocessing.

It needs torchvision even for text. Beside a CPU build of torch the wheel's compiled operators cannot load, so it lies
in a folder of its own (`make setup`) and the two operators its Python names are declared before it is imported; no
operator is used by the processors. Import this module before transformers.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from contract.preprocessing import ImageProcessing
from edge_runtime.items.item import Item
from edge_runtime.items.patches import normalised

_FOLDER = Path(__file__).parent.parent / ".cache" / "torchvision"
_library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]


def _declare() -> None:
    if importlib.util.find_spec("torchvision"):
        return  # one that belongs to this torch, with its operators
    if str(_FOLDER) not in sys.path:
        sys.path.append(str(_FOLDER))
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]


_declare()


def load_processor(checkpoint: Path) -> Any:
    """AutoProcessor of a checkpoint folder, with the PIL image backend that the device uses."""
    from transformers import AutoImageProcessor, AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint)
    processor.image_processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    return processor


def pixel_values(item: Item, how: ImageProcessing) -> NDArray[np.float32]:
    """What the device's bytes are to transformers' tower, and to its processor's answer."""
    return normalised(item.patches, how.mean, how.std)
