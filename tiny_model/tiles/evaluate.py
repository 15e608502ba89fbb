"""How well the bundled model with tiles answers, and how much worse when a device or a server is wrong.

It counts as tiny_model.evaluate does: exact matches of whole answers on scenes that no training run has drawn.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import LlavaNextForConditionalGeneration

from edge_runtime.items import unpad
from edge_runtime.items.tiles import best_pinpoint
from tiny_model.batches import IGNORE
from tiny_model.evaluation import publish
from tiny_model.held_out import SEED, held_out
from tiny_model.tiles.architecture import SIDE, TILES
from tiny_model.tiles.batches import KINDS, TileBatch, TileCollator, TileItem, draw_item, draw_size
from tiny_model.tiles.passes import spoken, taken

Rows = np.ndarray[Any, np.dtype[np.float32]]
Size = tuple[int, int]


def _grid(size: Size) -> Size:
    high, wide = best_pinpoint(*size, TILES.pinpoints)
    return high // SIDE, wide // SIDE


def _with(rows: Rows, start: int, end: int | None, value: Any) -> Rows:
    changed = rows.copy()
    changed[start:end] = value
    return changed


def _transposed(rows: Rows, newline: Rows, size: Size) -> Rows:
    down, across = _grid(size)
    tiles = rows[1:].reshape(down, across, *rows.shape[1:]).swapaxes(0, 1).reshape(rows[1:].shape)
    return unpad.unpadded(np.concatenate([rows[:1], tiles]), *size, TILES, newline)


def _one_line_early(rows: Rows, newline: Rows, size: Size) -> Rows:
    """What a device makes that starts a line, or a column, too early where the picture does not fill its canvas."""
    down, across = _grid(size)
    side, width = TILES.side_rows, rows.shape[-1]
    whole = rows[1:].reshape(down, across, side, side, width).swapaxes(1, 2).reshape(down * side, across * side, width)
    _, _, top, left = unpad._unpadded(*size, TILES)
    whole = np.roll(whole, (int(top > 0), int(left > 0)), (0, 1))
    tiles = whole.reshape(down, side, across, side, width).swapaxes(1, 2).reshape(rows[1:].shape)
    return unpad.unpadded(np.concatenate([rows[:1], tiles]), *size, TILES, newline)


# Each makes the rows of one picture from those of its tiles, (1 + tiles, rows, H), the newline and the picture's size.
FAULTS: dict[str, Callable[[Rows, Rows, Size], Rows]] = {
    "none": lambda rows, newline, size: unpad.unpadded(rows, *size, TILES, newline),
    "whole picture zeroed": lambda r, n, s: unpad.unpadded(_with(r, 0, 1, 0), *s, TILES, n),
    "tiles zeroed": lambda r, n, s: unpad.unpadded(_with(r, 1, None, 0), *s, TILES, n),
    "tiles transposed": _transposed,
    "newlines zeroed": lambda r, n, s: unpad.unpadded(r, *s, TILES, n * 0),
    "a line early": _one_line_early,
    "rows reversed": lambda r, n, s: unpad.unpadded(r, *s, TILES, n)[::-1],
    "BOS lost": lambda r, n, s: unpad.unpadded(r, *s, TILES, n),
}


def held_out_items(per_kind: int, seed: int = SEED) -> list[TileItem]:
    """Fresh pictures of all sizes, with `per_kind` questions of every kind in all."""
    return held_out(KINDS, per_kind, lambda random, subject: draw_item(random, subject, *draw_size(random)), seed)


def _without_first(batch: TileBatch) -> TileBatch:
    return replace(
        batch,
        input_ids=batch.input_ids[:, 1:],
        labels=batch.labels[:, 1:],
        position_ids=batch.position_ids[:, :, 1:] - 1,
        attention_mask=batch.attention_mask[:, :, 1:, 1:],
        branches=batch.branches[:, 1:],
    )


@torch.no_grad()
def right_answers(model: Any, item: TileItem, collate: TileCollator, faults: tuple[str, ...]) -> dict[str, list[bool]]:
    """Which questions of an item are answered right under each fault."""
    batch = collate.collated([item])
    rows = model.model.multi_modal_projector(taken(model, batch)).numpy()
    newline, found = model.model.image_newline.numpy(), {}
    for fault in faults:
        given = torch.from_numpy(np.ascontiguousarray(FAULTS[fault](rows, newline, item.size)))
        asked = _without_first(batch) if fault == "BOS lost" else batch
        best = model.lm_head(spoken(model, given, asked)).argmax(-1)
        good = (best == asked.labels) | (asked.labels == IGNORE)
        found[fault] = [bool(good[asked.branches == number].all()) for number in range(len(item.questions))]
    return found


def accuracy(
    model: Any, tokenizer: Tokenizer, per_kind: int = 40, faults: tuple[str, ...] = ("none",)
) -> dict[str, dict[str, float]]:
    """Share of exactly right answers of each fault, 0 to 1, by kind of question, and under `claimed` over all kinds."""
    model.eval()
    collate, asked = TileCollator(tokenizer), Counter[str]()
    right = {fault: Counter[str]() for fault in faults}
    for item in held_out_items(per_kind):
        asked.update(question.kind for question in item.questions)
        for fault, good in right_answers(model, item, collate, faults).items():
            right[fault].update(q.kind for q, is_right in zip(item.questions, good, strict=True) if is_right)
    return {
        fault: {kind: round(right[fault][kind] / asked[kind], 3) for kind in KINDS}
        | {"claimed": round(right[fault].total() / asked.total(), 3)}
        for fault in faults
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluate the bundled model with tiles and what faults cost it.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--per-kind", type=int, default=60, help="questions of every kind")
    parser.add_argument("--out", type=Path, help="write the table as JSON here")
    args = parser.parse_args()
    model = LlavaNextForConditionalGeneration.from_pretrained(args.checkpoint, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(args.checkpoint / "tokenizer.json"))
    tables = accuracy(model, tokenizer, args.per_kind, tuple(FAULTS))
    publish(tables, args.per_kind, KINDS, args.out)


if __name__ == "__main__":
    main()
