"""transformers' own way from a picture's tiles to the rows of the prompt; the gate compares `arrange` with it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]


def joined(config: Any, parts: Rows, height: int, width: int, newline: Rows | None) -> Rows:
    """The tiles' rows one after another; see export.families.TileFamily."""
    return parts.reshape(-1, parts.shape[-1])


def packed_by(
    model: type, config: Any, parts: Rows, height: int, width: int, newline: Rows | None, **given: Any
) -> Rows:
    """What `pack_image_features` of a transformers model makes of the tiles of one picture, float32 (n, H).

    Args:
        model: the model's class.
        config, parts, height, width, newline: as in export.families.TileFamily.
        given: what this model's function takes beside tiles, sizes and newline.
    """
    import torch

    end = None if newline is None else torch.tensor(newline)  # a copy: the bundle's array is read-only
    tiles, sizes = [torch.from_numpy(parts)], torch.tensor([[height, width]])
    pack: Any = model.pack_image_features  # type: ignore[attr-defined]
    rows, _ = pack(SimpleNamespace(config=config), tiles, sizes, image_newline=end, **given)
    found: Rows = rows[0].numpy()
    return found
