"""Training batches of pictures that are cut into tiles, as tiny_model.batches makes them of whole pictures."""

from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from edge_runtime.items.patches import normalised
from edge_runtime.items.tiles import anyres, best_pinpoint, cut
from edge_runtime.items.unpad import num_rows
from tiny_model.batches import HALF, IGNORE, Asked, Collator, Row, mark, padded_rows
from tiny_model.questions import IMAGE_KINDS, UNCLAIMED, Question, about_scene
from tiny_model.scenes import Scene, shapes_scene, text_scene
from tiny_model.tiles.architecture import BOS, IMAGE, SIDE, TILES

KINDS = tuple(kind for kind in IMAGE_KINDS if kind not in UNCLAIMED)


@dataclass(frozen=True)
class TileItem:
    """One picture as the device cuts it, and its questions."""

    tiles: NDArray[np.uint8]  # (n, SIDE, SIDE, 3), the whole picture first
    size: tuple[int, int]  # height and width of the picture in pixels
    questions: list[Question]
    targets: NDArray[np.int64]  # (3, n * rows of a tile)


def _placed(length: int, resized: int, start: int, num: int) -> NDArray[np.float64]:
    """Middles of `num` patches, in canvas pixels of an axis that is `length` long, and `resized` long from `start` on."""
    return ((np.arange(num) + 0.5) * TILES.patch - start) * length / resized


def _targets(scene: Scene, width: int, height: int) -> NDArray[np.int64]:
    """Classes of tiny_model.batches.mark for every patch of every tile: int64 (3, tiles * rows)."""
    side, n = TILES.side_rows, TILES.num_rows
    whole = np.zeros((3, side, side), np.int64)
    parts = scene.shapes, scene.glyphs, scene.text_color
    mark(whole, *parts, _placed(height, SIDE, 0, side), _placed(width, SIDE, 0, side))
    if scene.glyphs:
        whole[2, whole[1] > 0] = IGNORE  # too small to read there
    high, wide = best_pinpoint(scene.image.height, scene.image.width, TILES.pinpoints)
    scale = min(wide / width, high / height)
    new_w, new_h = min(round(width * scale), wide), min(round(height * scale), high)
    lines, columns = high // TILES.patch, wide // TILES.patch
    full = np.zeros((3, lines, columns), np.int64)
    y, x = _placed(height, new_h, (high - new_h) // 2, lines), _placed(width, new_w, (wide - new_w) // 2, columns)
    mark(full, *parts, y, x)
    tiles = cut(full.transpose(1, 2, 0), side)  # (tiles, side, side, 3)
    return np.concatenate([whole.reshape(3, n), tiles.reshape(-1, 3).T], axis=1)


def draw_size(random: Random) -> tuple[int, int]:
    """Width and height of a canvas, so that every pinpoint comes up, and pictures that fill none."""
    long, short, near = random.randint(192, 288), random.randint(96, 112), random.randint(128, 192)
    return random.choice([(near, random.randint(128, 192)), (192, near), (near, 192), (long, short), (short, long)])


def draw_item(random: Random, kind: str, width: int, height: int) -> TileItem:
    """A fresh picture with one question of every kind in KINDS that fits; kind is shapes or text."""
    scene = (shapes_scene if kind == "shapes" else text_scene)(random, width, height, random.choice([1, 2, 3]))
    questions = [question for question in about_scene(random, scene) if question.kind in KINDS]
    size = scene.image.height, scene.image.width
    return TileItem(anyres(scene.image, TILES), size, questions, _targets(scene, width, height))


@dataclass(frozen=True)
class TileBatch(Asked):
    """Tensors of one step."""

    pixel_values: torch.Tensor  # (tiles, 3, SIDE, SIDE)
    sizes: torch.Tensor  # (B, 2), heights and widths
    num_tiles: list[int]
    targets: torch.Tensor  # (3, tiles * rows)


class TileCollator(Collator):
    """Turns items into a batch; a text begins with BOS, positions have one axis."""

    def collated(self, items: list[TileItem]) -> TileBatch:
        """Collate; the questions are branches."""
        text = padded_rows([self._tile_row(item) for item in items])
        tiles = np.concatenate([item.tiles for item in items])
        return TileBatch(
            **vars(text),
            pixel_values=torch.from_numpy(normalised(tiles.reshape(len(tiles), -1), HALF, HALF))
            .view(tiles.shape)
            .permute(0, 3, 1, 2)
            .contiguous(),
            sizes=torch.tensor([item.size for item in items]),
            num_tiles=[len(item.tiles) for item in items],
            targets=torch.from_numpy(np.concatenate([item.targets for item in items], axis=1)),
        )

    def _tile_row(self, item: TileItem) -> Row:
        pads = IMAGE * num_rows(*item.size, TILES)
        ids = self.encode(f"{BOS}<|im_start|>user\n{pads}")
        return self.with_questions(ids, np.tile(np.arange(len(ids)), (3, 1)), len(ids), item.questions, False)
