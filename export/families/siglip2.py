"""SigLIP 2 of any aspect ratio (NaFlex) as an embedding model: the position table is resized to each picture's grid.

transformers pads pictures to one number of patches and masks the padding. The graph takes one picture after another
(export/graph/loop.py), so no padding and no mask exist, and the vectors are the same. SigLIP 2 of one size has SigLIP's
model_type.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError
from contract.tiles import Tiles
from export.families.embedder_pictures import processor_of
from export.families.pooled_tower import PooledTower, pool, pooled_tower
from export.families.siglip import PADS_TO_MAX, check_head, texts
from export.families.tile_facts import TileFacts, facts, mean_of
from export.families.tile_tower import PATCH, blocks, for_bytes, patch_rows
from export.graph.builder import Builder
from export.graph.group import Group
from export.graph.layers import Layers
from export.graph.tower import Read, Tower

__all__ = ["PADS_TO_MAX", "body", "facts_of", "features", "for_bytes", "pictures", "pixels", "texts"]

TABLE = "pos_embed.weight"


class FlexTower(PooledTower):
    """A tower that takes one picture of any grid, and resizes its table of positions, table_side^2 rows, to the grid."""

    def reader(self, read: Read) -> Read:
        """See TileTower.reader; the checkpoint's patches have their channels last."""
        plain, shape = super().reader(read), self.shapes[f"{PATCH}.weight"]  # (hidden, 3, patch, patch)

        def reading(name: str) -> NDArray[np.float32]:
            if name != f"{PATCH}.weight":
                return plain(name)
            weight = plain(name).reshape(shape[0], shape[2], shape[3], 3)
            return np.ascontiguousarray(weight.transpose(0, 3, 1, 2))

        return reading


def pictures(config: Any) -> FlexTower:
    """See export.families.EmbedderFamily."""
    vision = config.vision_config
    check_head(vision)
    side = int(vision.num_patches**0.5)
    if side**2 != vision.num_patches:
        raise BundleError(f"vision_config.num_patches is {vision.num_patches}, a square number is expected")
    of_one_size = pooled_tower(vision, vision.hidden_size, side=side, has_class_row=False)
    return FlexTower(**vars(of_one_size) | {"fixed_side": None, "table_side": side})


def facts_of(folder: Path, config: Any) -> TileFacts:
    """See export.families.EmbedderFamily."""
    processor, patch = processor_of(folder), config.vision_config.patch_size
    if processor.patch_size != patch:
        raise BundleError(
            f"{folder}: the image processor's patch_size is {processor.patch_size}, vision_config's is {patch}"
        )
    most = int(processor.max_num_patches)
    return facts(processor, Tiles("fit", patch, patch, 1, patch, mean_of(processor), max_patches=most))


def pixels(given: Mapping[str, Any], tiles: Tiles) -> NDArray[np.float32]:
    """The pixels of one picture, of which transformers has patches with channels last, and padding behind them; see
    export.families.EmbedderFamily."""
    height, width = (int(side) for side in given["spatial_shapes"][0])
    patch = tiles.patch
    values = np.asarray(given["pixel_values"])[0, : height * width].reshape(height, width, patch, patch, 3)
    return values.transpose(4, 0, 2, 1, 3).reshape(1, 3, height * patch, width * patch)


def features(
    whole: Any, tower: Tower, tiles: Tiles, values: NDArray[np.float32], grid_thw: NDArray[np.int64]
) -> NDArray[np.float32]:
    """All frames as one batch of transformers, padded and masked; see export.families.EmbedderFamily."""
    import torch

    grids = np.repeat(grid_thw[:, 1:], grid_thw[:, 0], axis=0)  # (frames, 2)
    counts = grids.prod(1)
    last = values.reshape(len(values), 3, -1).swapaxes(1, 2).reshape(len(values), -1)  # channels last
    filled = np.zeros((len(grids), counts.max(), values.shape[1]), np.float32)
    is_seen = np.arange(counts.max()) < counts[:, None]  # (frames, most patches)
    filled[is_seen] = last
    mend_columns(whole)
    with torch.inference_mode():
        found = whole.get_image_features(
            pixel_values=torch.from_numpy(filled),
            pixel_attention_mask=torch.from_numpy(is_seen.astype(np.int32)),
            spatial_shapes=torch.from_numpy(grids),
        )
    vectors: NDArray[np.float32] = found.pooler_output.numpy()
    return vectors


def mend_columns(whole: Any) -> None:
    """Make transformers' model resize its table to one column as to several; a second call changes nothing.

    torch 2.13 on a CPU gives other numbers for `interpolate(antialias=True)` to a width of 1 than for the same resize
    with rows and columns swapped (findings/one_column.sh). So this call swaps them, and a grid of one column reads the
    same from both sides.
    """
    import torch

    embeddings = whole.vision_model.embeddings
    resize = type(embeddings).resize_positional_embeddings

    def resized(positional_embeddings: Any, spatial_shapes: Any, max_length: int) -> Any:
        swapped = positional_embeddings.swapaxes(0, 1)
        rows = (
            resize(swapped, one.flip(1), max_length)
            if one[0, 1] == 1
            else resize(positional_embeddings, one, max_length)
            for one in spatial_shapes.split(1)
        )
        return torch.cat(list(rows))

    embeddings.resize_positional_embeddings = resized


def body(graph: Builder, layers: Layers, tower: Tower, group: Group) -> tuple[str, list[str]]:
    """The tower over one group of frames, (frames, width); see export.families.Family."""
    assert isinstance(tower, FlexTower)
    op, hidden = graph.op, tower.hidden_size
    shape = op("Concat", [group.frames, group.frame_patches, graph.ints(hidden)], "rows_shape", axis=0)
    rows = op("Reshape", [patch_rows(graph, layers, tower, group), shape])
    rows = op("Add", [rows, _positions(graph, tower, layers.read, group)])  # (frames, hw, hidden)
    rows = op("Reshape", [rows, graph.ints(-1, hidden)])
    half = op("Concat", [group.frame_patches, graph.ints(tower.head_dim // 2)], "angles_shape", axis=0)
    still = op("Expand", [graph.scalar(1.0), half]), op("Expand", [graph.scalar(0.0), half])
    packed = op("Concat", [group.frames, group.frame_patches, graph.ints(3 * hidden)], "group_shape", axis=0)
    rows = blocks(layers, tower, rows, layers.whole_frames(still, packed))[-1]
    return pool(graph, layers, tower, rows, group.frames), []


def _positions(graph: Builder, tower: FlexTower, read: Read, group: Group) -> str:
    """The table at the frame's grid, (hw, hidden): bilinear with antialiasing, one axis after the other.

    The rule is torch's `interpolate(mode="bilinear", antialias=True, align_corners=False)`.
    """
    op, side, hidden = graph.op, tower.table_side, tower.hidden_size

    def table() -> NDArray[np.float32]:
        return read(TABLE).reshape(side, side * hidden)

    rows, columns = (_weights(graph, side, size) for size in (group.height, group.width))  # (h, side), (w, side)
    resized = op("MatMul", [rows, graph.weight("pos_embed", table)])  # (h, side * hidden)
    resized = op("Reshape", [resized, op("Concat", [group.height, graph.ints(side, hidden)], axis=0)])
    return op("Reshape", [op("MatMul", [columns, resized]), graph.ints(-1, hidden)])


def _weights(graph: Builder, side: int, size: str) -> str:
    """How much each of `side` places of the table counts at each of `size` places, float32 (size, side)."""
    op = graph.op
    scale = op("Div", [graph.scalar(float(side)), op("Cast", [size], to=1)])  # (1,)
    places = op("Range", [graph.scalar(0, np.int64), op("Squeeze", [size]), graph.scalar(1, np.int64)])
    centres = op("Mul", [op("Add", [op("Cast", [places], to=1), graph.scalar(0.5)]), scale])  # (size,)
    middles = graph.weight("table_middles", lambda: np.arange(side, dtype=np.float32)[None] + np.float32(0.5))
    distance = op("Abs", [op("Sub", [middles, op("Unsqueeze", [centres, graph.ints(1)])])])  # (size, side)
    reach = op("Max", [scale, graph.scalar(1.0)])
    raw = op("Relu", [op("Sub", [graph.scalar(1.0), op("Div", [distance, reach])])])
    return op("Div", [raw, op("ReduceSum", [raw, graph.ints(1)], keepdims=1)])
