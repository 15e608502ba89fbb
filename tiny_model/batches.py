"""Training batches: one picture or clip, several questions that do not see each other.

The questions of an item are branches behind one shared prefix: the attention mask hides them from each other and each
starts at the position where the prefix ends. If one sequence asked them all, the model would copy the
answer to "what colour is the circle" from the description before it, and never learn to look.
"""

from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from contract.families.mrope import mrope_positions
from edge_runtime.items.patches import normalised, to_patches
from tiny_model.architecture import MERGE_SIZE
from tiny_model.clips import DrawnClip, moving_clip, slideshow_clip
from tiny_model.questions import Question, about_clip, about_scene
from tiny_model.scenes import CHARACTERS, COLORS, SHAPES, SIDES, Glyph, Scene, Shape, shapes_scene, text_scene

HALF = (0.5, 0.5, 0.5)
IGNORE = -100
TARGETS = (1 + len(SHAPES), 1 + len(COLORS), 1 + len(CHARACTERS))  # classes per patch: shape, colour, character


@dataclass(frozen=True)
class Item:
    """One picture or clip, ready for the tower, and its questions."""

    patches: NDArray[np.uint8]  # (t*h*w, 1536)
    grid: tuple[int, int, int]
    is_video: bool
    prefix: str  # prompt text up to the question
    questions: list[Question]
    targets: NDArray[np.int64]  # (3, t*h*w)


def _shrink(image: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def mark(
    targets: NDArray[np.int64],
    shapes: tuple[Shape, ...],
    glyphs: tuple[Glyph, ...],
    text_color: str,
    y: NDArray[np.floating[Any]],
    x: NDArray[np.floating[Any]],
) -> None:
    """Write the classes of shapes and characters into `targets`, int64 (3, h, w).

    Args:
        y, x: (h,) and (w,), middles of the patches in canvas pixels, at equal distances.
    """
    half_y, half_x = (y[1] - y[0]) / 2, (x[1] - x[0]) / 2
    y, x = y[:, None], x[None]
    for s in shapes:
        covered = (np.abs(x - s.x) < max(s.radius + 2, half_x)) & (np.abs(y - s.y) < max(s.radius + 2, half_y))
        targets[0, covered] = 1 + SHAPES.index(s.kind)
        targets[1, covered] = 1 + list(COLORS).index(s.color)
    for g in glyphs:
        covered = (x > g.left - 4) & (x <= g.right + 4) & (y > g.top - 6) & (y <= g.bottom + 6)
        middle = np.abs(x - (g.left + g.right) / 2) <= max((g.right - g.left) / 2 + 2, half_x)
        targets[1, covered] = 1 + list(COLORS).index(text_color)
        targets[2, covered & middle] = 1 + CHARACTERS.index(g.character)


def _targets(subject: Scene | DrawnClip, grid: tuple[int, int, int]) -> NDArray[np.int64]:
    """Class of what covers the middle of each patch, 0 for nothing: int64 (3, t*h*w) in merge-block order."""
    t, h, w = grid
    targets = np.zeros((3, t, h, w), np.int64)
    y, x = (np.arange(h) + 0.5) * 16, (np.arange(w) + 0.5) * 16
    if isinstance(subject, Scene):
        mark(targets[:, 0], subject.shapes, subject.glyphs, subject.text_color, y, x)
    else:
        for frame, shape in enumerate(subject.shapes):
            mark(targets[:, frame], (shape,), (), "", y, x)
    m = MERGE_SIZE
    blocks = targets.reshape(3, t, h // m, m, w // m, m).transpose(0, 1, 2, 4, 3, 5)
    return blocks.reshape(3, -1)


def scene_item(random: Random, scene: Scene, width: int, height: int) -> Item:
    """A still picture with one question of every kind."""
    patches, grid = to_patches(_shrink(scene.image, width, height)[None])
    pads = "<|image_pad|>" * (grid[1] * grid[2] // MERGE_SIZE**2)
    prefix = f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>"
    return Item(patches, grid, False, prefix, about_scene(random, scene), _targets(scene, grid))


def clip_item(random: Random, clip: DrawnClip, width: int, height: int) -> Item:
    """A clip whose frames stand at a random rate, with its timestamp texts."""
    frames = np.stack([_shrink(frame, width, height) for frame in clip.frames])
    patches, grid = to_patches(frames)
    seconds_per_frame = random.uniform(0.3, 1.0)
    timestamps = [f"{(2 * pair + 0.5) * seconds_per_frame:.1f}" for pair in range(grid[0])]
    pads = "<|video_pad|>" * (grid[1] * grid[2] // MERGE_SIZE**2)
    groups = "".join(f"<{stamp} seconds><|vision_start|>{pads}<|vision_end|>" for stamp in timestamps)
    prefix = f"<|im_start|>user\n<|vision_start|>{groups}<|vision_end|>"
    return Item(patches, grid, True, prefix, about_clip(random, clip, timestamps), _targets(clip, grid))


def draw_item(random: Random, kind: str, width: int, height: int, num_pairs: int = 2) -> Item:
    """A fresh item; kind is shapes, text, moving or slideshow."""
    scale = random.choice([1, 2, 3])
    if kind in ("moving", "slideshow"):
        draw = moving_clip if kind == "moving" else slideshow_clip
        return clip_item(random, draw(random, width, height, num_pairs, scale), width, height)
    draw_scene = shapes_scene if kind == "shapes" else text_scene
    return scene_item(random, draw_scene(random, width, height, scale), width, height)


def draw_items(random: Random, kind: str, count: int) -> list[Item]:
    """Items of one kind and one size, so that vision attention is one batched product."""
    if kind in ("moving", "slideshow"):
        width, height = random.choice([(96, 96), (96, 96), (128, 96), (96, 128), (128, 128), (160, 160)])
        num_pairs = random.choice([2, 2, 3, 4]) if width * height < 128 * 128 else 2
        return [draw_item(random, kind, width, height, num_pairs) for _ in range(max(count // 2, 1))]
    width, height = random.choice(SIDES), random.choice(SIDES)
    return [draw_item(random, kind, width, height) for _ in range(count)]


@dataclass(frozen=True)
class Asked:
    """The text of one step. S is the padded length; branches of an item share its row."""

    input_ids: torch.Tensor  # (B, S)
    labels: torch.Tensor  # (B, S), already shifted: labels[i] is what token i predicts
    position_ids: torch.Tensor  # (3, B, S)
    attention_mask: torch.Tensor  # (B, 1, S, S), added to the scores
    branches: torch.Tensor  # (B, S), number of the question, -1 in the prefix, -2 behind the row's end


@dataclass(frozen=True)
class Batch(Asked):
    """Tensors of one step."""

    pixel_values: torch.Tensor
    grid_thw: torch.Tensor  # (B, 3)
    is_video: bool
    targets: torch.Tensor  # (3, patches)


Row = tuple[list[int], list[int], NDArray[np.int64], list[int]]  # ids, labels, positions (3, n), branches


def padded_rows(rows: list[Row], chained: bool = False) -> Asked:
    """Rows of different lengths as one text; branches do not see each other, unless they are chained turns."""
    length, batch = max(len(row[0]) for row in rows), len(rows)
    ids, labels = np.zeros((batch, length), np.int64), np.full((batch, length), IGNORE)
    positions, branches = np.zeros((3, batch, length), np.int64), np.full((batch, length), -2)
    for i, row in enumerate(rows):
        n = len(row[0])
        ids[i, :n], labels[i, :n], positions[:, i, :n], branches[i, :n] = row
    group = torch.from_numpy(branches)
    seen = torch.ones(length, length).tril().bool()[None]
    if not chained:
        same = group[:, :, None] == group[:, None, :]
        seen = seen & (same | (group[:, None, :] == -1))
    mask = torch.zeros(batch, 1, length, length).masked_fill_(~seen[:, None], torch.finfo(torch.float32).min)
    return Asked(torch.from_numpy(ids), torch.from_numpy(labels), torch.from_numpy(positions), mask, group)


class Collator:
    """Turns items into a batch."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        (self._image_pad,), (self._video_pad,) = self.encode("<|image_pad|>"), self.encode("<|video_pad|>")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens that it does not write."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def __call__(self, items: list[Item], chained: bool = False) -> Batch:
        """Collate; chained makes the questions the turns of one conversation instead of branches."""
        text = padded_rows([self._row(item, chained) for item in items], chained)
        return Batch(
            **vars(text),
            pixel_values=torch.from_numpy(
                normalised(np.concatenate([item.patches for item in items]), HALF, HALF),
            ),
            grid_thw=torch.tensor([item.grid for item in items]),
            is_video=items[0].is_video,
            targets=torch.from_numpy(np.concatenate([item.targets for item in items], axis=1)),
        )

    def _row(self, item: Item, chained: bool) -> Row:
        ids = self.encode(item.prefix)
        empty, grid = np.zeros((0, 3), np.int64), np.array([item.grid])
        images, videos = (empty, grid) if item.is_video else (grid, empty)
        start, delta = mrope_positions(np.array(ids), images, videos, self._image_pad, self._video_pad, MERGE_SIZE)
        return self.with_questions(ids, start, len(ids) + delta, item.questions, chained)

    def with_questions(
        self, prefix: list[int], positions: NDArray[np.int64], after: int, questions: list[Question], chained: bool
    ) -> Row:
        """A prefix and its questions.

        Args:
            positions: (3, n), of the prefix.
            after: the position where the prefix ends.
        """
        ids, labels, branches, pieces = list(prefix), [IGNORE] * len(prefix), [-1] * len(prefix), [positions]
        for number, question in enumerate(questions):
            opening = "\n<|im_start|>user\n" if chained and number else ""
            asked = self.encode(f"{opening}{question.text}<|im_end|>\n<|im_start|>assistant\n")
            answer = self.encode(f"{question.answer}<|im_end|>")
            branch = asked + answer
            ids += branch
            labels += [IGNORE] * (len(asked) - 1) + answer + [IGNORE]
            branches += [number] * len(branch)
            pieces.append(np.broadcast_to(np.arange(after, after + len(branch)), (3, len(branch))))
            after += len(branch) if chained else 0
        return ids, labels, np.concatenate(pieces, axis=1), branches
