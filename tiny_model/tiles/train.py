"""Train the bundled model with tiles on a CPU: `python -m tiny_model.tiles.train --out DIR`.

It starts from the weights of models/tiny, trains the tower alone on dense targets, which CLIP's blocks need because they
have other positions, and then everything on questions. Both stages end with the clock, so that a slower machine takes
fewer steps.
"""

import argparse
import os
import time
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch.nn.functional import cross_entropy
from transformers import LlavaNextForConditionalGeneration

from tiny_model.batches import IGNORE
from tiny_model.dense import DenseHead, dense_loss, dense_shares
from tiny_model.optimizers import Optimizers
from tiny_model.run import Run
from tiny_model.tiles.architecture import BOS, IMAGE, tiles_config
from tiny_model.tiles.batches import TileBatch, TileCollator, draw_item, draw_size
from tiny_model.tiles.evaluate import accuracy
from tiny_model.tiles.package import package
from tiny_model.tiles.passes import packed, spoken, taken
from tiny_model.tiles.start import start_from
from tiny_model.vocabulary import build_tokenizer

START = Path("models/tiny")
TOWER_PHASES = ((5.0, {"shapes": 0.5, "text": 0.5}), (3.5, {"shapes": 0.25, "text": 0.75}))  # minutes, kinds
KINDS = {"shapes": 0.65, "text": 0.35}


class Trainer:
    """Model, dense head and data of one run."""

    def __init__(self, out: Path, seed: int, resume: bool = False) -> None:
        torch.manual_seed(seed)
        self.random, self.tokenizer = Random(seed), build_tokenizer(more_special=(BOS, IMAGE))
        self.collate = TileCollator(self.tokenizer)
        kind = LlavaNextForConditionalGeneration
        self.model = kind.from_pretrained(out) if resume else kind(tiles_config(self.tokenizer))
        self.model.set_attn_implementation("eager")  # twice as fast backward on a CPU, with masks
        self.dense_head = DenseHead(self.model.config.vision_config.hidden_size)
        self.run = Run(out, self.tokenizer, self.model, self.dense_head, resume)
        if not resume:
            start_from(self.model, START)

    def batch(self, count: int, kinds: dict[str, float]) -> TileBatch:
        """Items of one kind and one canvas."""
        kind, size = self.random.choices(list(kinds), list(kinds.values()))[0], draw_size(self.random)
        return self.collate.collated([draw_item(self.random, kind, *size) for _ in range(count)])

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """The dense head's: (tiles, rows, hidden) to (patches, sum of TARGETS)."""
        found: torch.Tensor = self.dense_head(states.flatten(0, 1))
        return found

    def train_tower(
        self, minutes: float, kinds: dict[str, float], lr: float = 2e-3, muon_lr: float = 6e-3, count: int = 24
    ) -> None:
        """The tower and the dense head alone."""
        named = self.run.parameters(self.model.model.vision_tower)
        optimizers, start, seen, step = Optimizers(named, lr, muon_lr), time.monotonic(), [], 0
        while (progress := (time.monotonic() - start) / 60 / minutes) < 1:
            step += 1
            batch = self.batch(count, kinds)
            with torch.autocast("cpu", torch.bfloat16):
                scores = self.scores(taken(self.model, batch))
                loss = dense_loss(scores, batch.targets)
            optimizers.step(loss, step, progress)
            seen.append([loss.item(), *dense_shares(scores, batch.targets)])
            if step % 50 == 0:
                mean = [round(value, 3) for value in torch.tensor(seen).nanmean(0).tolist()]
                self.run.log(stage="tower", step=step, minutes=round(progress * minutes, 1), loss_shape_color_char=mean)
                seen = []
        self.run.save()

    def train_all(self, minutes: float, lr: float = 1.5e-3, muon_lr: float = 4e-3, count: int = 24) -> None:
        """Everything, on questions; the dense targets fade out."""
        named = self.run.parameters(self.model)
        optimizers, start, seen, step = Optimizers(named, lr, muon_lr), time.monotonic(), {}, 0
        while (progress := (time.monotonic() - start) / 60 / minutes) < 1:
            step += 1
            batch = self.batch(count, KINDS)
            with torch.autocast("cpu", torch.bfloat16):
                states = taken(self.model, batch)
                hidden = spoken(self.model, packed(self.model, states, batch), batch)
                answered = batch.labels != IGNORE
                logits = self.model.lm_head(hidden[answered]).float()
                said = cross_entropy(logits, batch.labels[answered])
                loss = said
                if (weight := 0.3 * max(0.0, 1 - progress / 0.7)) > 0:
                    loss = loss + weight * dense_loss(self.scores(states), batch.targets)
            optimizers.step(loss, step, progress)
            seen.setdefault("text" if (batch.targets[2] != 0).any() else "shapes", []).append(said.item())
            if step % 50 == 0:
                losses = {kind: round(sum(values) / len(values), 4) for kind, values in seen.items()}
                self.run.log(stage="all", step=step, minutes=round(progress * minutes, 1), **losses)
                seen = {}
            if step % 100 == 0:
                self.run.save()
            if step % 300 == 0:
                table = accuracy(self.model, self.tokenizer, per_kind=10)["none"]
                self.run.log(stage="eval", step=step, **table)
                self.model.train()
        self.run.save()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled model with tiles from models/tiny.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: weights, tokenizer, log")
    parser.add_argument("--package", type=Path, help="write the finished checkpoint here")
    parser.add_argument("--minutes", type=float, default=44, help="of the second stage")
    parser.add_argument("--resume", action="store_true", help="the second stage alone, from the weights in --out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # with other work on the machine two threads wait for each other
    trainer = Trainer(args.out, args.seed, args.resume)
    if not args.resume:
        for minutes, kinds in TOWER_PHASES:
            trainer.train_tower(minutes, kinds)
    trainer.train_all(args.minutes)
    if args.package:
        package(args.out, args.package)


if __name__ == "__main__":
    main()
