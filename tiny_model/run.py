"""The folder of a training run: the tokenizer, the weights, and a log of JSON lines."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from tiny_model.dense import DenseHead

HEAD = "dense_head.pt"
LOG = "train.jsonl"
Named = list[tuple[str, torch.nn.Parameter]]


class Run:
    """A model and its dense head, and the folder that keeps them.

    Args:
        folder: it is made where it does not exist.
        model: a transformers model with a vision tower.
        head: where `resume` is true, it takes the weights that an earlier run left in the folder.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, model: Any, head: DenseHead, resume: bool = False) -> None:
        self.folder, self.model, self.head = folder, model, head
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        if resume:
            head.load_state_dict(torch.load(folder / HEAD))

    def parameters(self, part: torch.nn.Module) -> Named:
        """Named parameters of a part of the model, and the head's."""
        return [*part.named_parameters(), *((f"dense_head.{n}", p) for n, p in self.head.named_parameters())]

    def log(self, **values: object) -> None:
        """Print the values as a line of JSON, and append it to the log."""
        line = json.dumps(values)
        print(line, flush=True)
        with (self.folder / LOG).open("a") as file:
            file.write(line + "\n")

    def save(self) -> None:
        self.model.save_pretrained(self.folder)
        torch.save(self.head.state_dict(), self.folder / HEAD)
