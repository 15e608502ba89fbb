"""The whole model as the one that listens to rows: what it answers from them, and which of their directions it feels.

transformers takes finished rows in the place of pixels (`mm_encoder_outputs`). Only families with levels are tried here.
"""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from contract.card import ModelCard
from edge_runtime.encoded_item import EncodedItem

Rows = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]  # main (n, H), deepstack (L, n, H)


@dataclass(frozen=True)
class Question:
    """A prompt about one picture, int64 (S,), with a pad for each row."""

    item: EncodedItem
    input_ids: NDArray[np.int64]

    @property
    def rows(self) -> Rows:
        """The tower's rows."""
        return self.item.main, self.item.deepstack


class Listener:
    """transformers' model of a checkpoint, in float32.

    Args:
        folder: the checkpoint.
        card: its bundle's card.
    """

    def __init__(self, folder: Path, card: ModelCard) -> None:
        self._card = card
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        self._model: Any = model.eval().requires_grad_(False)

    @torch.no_grad()
    def answer(self, question: Question, max_tokens: int) -> list[int]:
        """The greedy answer from the tower's rows, the end token included."""
        inputs = self._inputs(question, _tensors(question.rows), [])
        found = self._model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        return list(found[0, len(question.input_ids) :].tolist())

    @torch.no_grad()
    def log_probabilities(self, question: Question, rows: Rows, answer: list[int]) -> torch.Tensor:
        """Natural logarithms of every answer token's distribution, float64 (answer, V)."""
        return self._scores(question, _tensors(rows), answer).double()

    def gradients(self, question: Question, answer: list[int], generator: torch.Generator) -> NDArray[np.float64]:
        """What the answer's distribution feels of each row, float64 (n, (1+L)*H), main first.

        It is the gradient of the log-probabilities of drawn tokens. Each token has a random sign, so that the outer
        product of one backward pass has the expectation of the sum over tokens: the Fisher information.
        """
        main, levels = (part.requires_grad_() for part in _tensors(question.rows))
        scores = self._scores(question, (main, levels), answer)
        drawn = torch.multinomial(scores.detach().exp(), 1, generator=generator)
        signs = torch.randint(0, 2, (len(drawn),), generator=generator) * 2.0 - 1
        of_main, of_levels = torch.autograd.grad((scores.gather(1, drawn)[:, 0] * signs).sum(), (main, levels))
        both = torch.cat([of_main[:, None], of_levels.transpose(0, 1)], dim=1)  # (n, 1+L, H)
        return both.flatten(1).double().numpy()

    def _scores(self, question: Question, rows: tuple[torch.Tensor, torch.Tensor], answer: list[int]) -> torch.Tensor:
        logits = self._model(**self._inputs(question, rows, answer), use_cache=False).logits[0]
        first = len(question.input_ids) - 1
        found: torch.Tensor = logits[first : first + len(answer)].log_softmax(-1)
        return found

    def _inputs(self, question: Question, rows: tuple[torch.Tensor, torch.Tensor], answer: list[int]) -> dict[str, Any]:
        self._model.model.rope_deltas = None  # of the prompt before
        ids = torch.tensor([[*question.input_ids.tolist(), *answer]])
        main, levels = rows
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == self._card.image_token_id) * 1,
            "image_grid_thw": torch.tensor([question.item.grid_thw]),
            "mm_encoder_outputs": {
                "image": SimpleNamespace(pooler_output=[main], deepstack_features=[[one] for one in levels])
            },
        }


def _tensors(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    main, levels = (torch.from_numpy(np.array(part, np.float32)) for part in rows)
    return main, levels
