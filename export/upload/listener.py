"""The whole model as the one that listens to rows: what it answers from them, and which of their directions it feels.

Families of three position axes take finished rows in the place of pixels (transformers' `mm_encoder_outputs`), because
their positions follow the grids. Those of one axis take the embeddings of the whole prompt, rows in the places of pads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from contract import families
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


@dataclass
class _TowerOutput(transformers.utils.ModelOutput):  # type: ignore[misc]
    """What a tower gives: transformers from 5.24 on asks it for a tuple, too."""

    pooler_output: list[torch.Tensor] | None = None
    deepstack_features: list[list[torch.Tensor]] | None = None


class Listener:
    """transformers' model of a checkpoint, in float32.

    Args:
        folder: the checkpoint.
        card: its bundle's card.
    """

    def __init__(self, folder: Path, card: ModelCard) -> None:
        self._card, self._is_flat = card, families.find(card.family).POSITIONS == "1d"
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        self._model: Any = model.eval().requires_grad_(False)

    @torch.no_grad()
    def answer(self, question: Question, max_tokens: int) -> list[int]:
        """The greedy answer from the tower's rows, the end token included."""
        inputs = self._inputs(question, _tensors(question.rows), [])
        found = self._model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        first = 0 if self._is_flat else len(question.input_ids)  # from embeddings transformers gives new tokens alone
        return list(found[0, first:].tolist())

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
        felt = (main, levels) if len(levels) else (main,)
        gradients = torch.autograd.grad((scores.gather(1, drawn)[:, 0] * signs).sum(), felt)
        of_levels = [one.transpose(0, 1) for one in gradients[1:]]  # (n, L, H)
        both = torch.cat([gradients[0][:, None], *of_levels], dim=1)  # (n, 1+L, H)
        return both.flatten(1).double().numpy()

    def _scores(self, question: Question, rows: tuple[torch.Tensor, torch.Tensor], answer: list[int]) -> torch.Tensor:
        logits = self._model(**self._inputs(question, rows, answer), use_cache=False).logits[0]
        first = len(question.input_ids) - 1
        found: torch.Tensor = logits[first : first + len(answer)].log_softmax(-1)
        return found

    def _inputs(self, question: Question, rows: tuple[torch.Tensor, torch.Tensor], answer: list[int]) -> dict[str, Any]:
        ids = torch.tensor([[*question.input_ids.tolist(), *answer]])
        is_pad = ids == self._card.image_token_id
        is_pad[:, len(question.input_ids) :] = False  # an answer may name the token
        main, levels = rows
        if self._is_flat:
            embedded = self._model.get_input_embeddings()(ids)
            return {
                "attention_mask": torch.ones_like(ids),
                "inputs_embeds": embedded.masked_scatter(is_pad[..., None], main),
            }
        self._model.model.rope_deltas = None  # of the prompt before
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": is_pad * 1,
            "image_grid_thw": torch.tensor([question.item.grid_thw]),
            "mm_encoder_outputs": {
                "image": _TowerOutput(pooler_output=[main], deepstack_features=[[one] for one in levels])
            },
        }


def _tensors(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    main, levels = (torch.from_numpy(np.array(part, np.float32)) for part in rows)
    return main, levels
