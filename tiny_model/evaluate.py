"""How well the bundled model answers, and how much worse when the server is wrong.

It counts exact matches of whole answers on scenes that no training run has drawn. For that, teacher-forced arg max of
every answer token is the same as greedy decoding, and a hundred times faster.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from transformers import Qwen3VLForConditionalGeneration

from tiny_model.batches import IGNORE, Batch, Collator, Item, draw_item
from tiny_model.evaluation import publish
from tiny_model.held_out import SEED, held_out
from tiny_model.questions import CLAIMED, IMAGE_KINDS, VIDEO_KINDS
from tiny_model.scenes import SIDES

Features = tuple[torch.Tensor, list[torch.Tensor]]  # main (N, H), deepstack levels of (N, H)


def held_out_items(per_kind: int, seed: int = SEED) -> list[Item]:
    """Fresh pictures and clips of all sizes, with `per_kind` questions of every kind in all."""

    def draw(random: Random, subject: str) -> Item:
        is_clip = subject in ("moving", "slideshow")
        width, height = (random.choice([96, 128]), 96) if is_clip else (random.choice(SIDES), random.choice(SIDES))
        return draw_item(random, subject, width, height, random.choice([2, 3, 4]))

    return held_out((*IMAGE_KINDS, *VIDEO_KINDS), per_kind, draw, seed)


def flat_positions(batch: Batch) -> torch.Tensor:
    """1-D positions (3, B, S): one step a token on every axis, as a text model counts."""
    seen = (batch.attention_mask[:, 0] == 0).sum(-1) - 1
    return seen[None].expand(3, -1, -1)


FAULTS: dict[str, Callable[[Features, Batch], tuple[Features, torch.Tensor]]] = {
    "none": lambda f, b: (f, b.position_ids),
    "deepstack dropped": lambda f, b: ((f[0], [level * 0 for level in f[1]]), b.position_ids),
    "deepstack levels reversed": lambda f, b: ((f[0], f[1][::-1]), b.position_ids),
    "positions 1-D": lambda f, b: (f, flat_positions(b)),
    "height and width swapped": lambda f, b: (f, b.position_ids[[0, 2, 1]]),
    "main embeddings zeroed": lambda f, b: ((f[0] * 0, f[1]), b.position_ids),
    "rows reversed": lambda f, b: ((f[0].flip(0), [level.flip(0) for level in f[1]]), b.position_ids),
}


@torch.no_grad()
def predictions(model: Qwen3VLForConditionalGeneration, batch: Batch, fault: str = "none") -> torch.Tensor:
    """Arg max token at every place, int64 (B, S), with one of FAULTS between the tower and the language model."""
    tower = model.model.visual(batch.pixel_values, grid_thw=batch.grid_thw, return_dict=True)
    (main, levels), position_ids = FAULTS[fault]((tower.pooler_output, list(tower.deepstack_features)), batch)
    features = type(tower)(pooler_output=[main], deepstack_features=[[level] for level in levels])
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=position_ids,
        mm_encoder_outputs={"video" if batch.is_video else "image": features},
        use_cache=False,
    ).logits
    best: torch.Tensor = logits.argmax(-1)
    return best


def accuracy(
    model: Qwen3VLForConditionalGeneration, tokenizer: Tokenizer, per_kind: int = 40, fault: str = "none"
) -> dict[str, float]:
    """Share of exactly right answers, 0 to 1, by kind of question, and under `claimed` over all claimed kinds."""
    model.eval()
    collate, right, asked = Collator(tokenizer), Counter[str](), Counter[str]()
    for item in held_out_items(per_kind):
        batch = collate([item])
        good = (predictions(model, batch, fault) == batch.labels) | (batch.labels == IGNORE)
        for number, question in enumerate(item.questions):
            asked[question.kind] += 1
            right[question.kind] += bool(good[batch.branches == number].all())
    table = {kind: round(right[kind] / asked[kind], 3) for kind in (*IMAGE_KINDS, *VIDEO_KINDS)}
    table["claimed"] = round(sum(right[k] for k in CLAIMED) / sum(asked[k] for k in CLAIMED), 3)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluate the bundled model and what faults cost it.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--per-kind", type=int, default=100, help="questions of every kind")
    parser.add_argument("--out", type=Path, help="write the table as JSON here")
    args = parser.parse_args()
    model = Qwen3VLForConditionalGeneration.from_pretrained(args.checkpoint, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(args.checkpoint / "tokenizer.json"))
    tables = {}
    for fault in FAULTS:
        tables[fault] = accuracy(model, tokenizer, args.per_kind, fault)
        print(f"{fault:28s} claimed {tables[fault]['claimed']}", flush=True)
    publish(tables, args.per_kind, CLAIMED, args.out)


if __name__ == "__main__":
    main()
