"""The head that training puts on the tower: what each patch shows, which is known from the drawing."""

import torch
from torch.nn.functional import cross_entropy

from tiny_model.batches import TARGETS

EMPTY_WEIGHT = 0.3  # empty ground counts less than what stands on it


class DenseHead(torch.nn.Linear):
    """States of patches (patches, hidden) to the scores of shape, colour and character, (patches, sum of TARGETS)."""

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden, sum(TARGETS))


def dense_loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The sum of three cross entropies: scores (patches, sum of TARGETS), targets (3, patches), 0 for empty ground."""
    losses = []
    for part, target in zip(scores.float().split(TARGETS, dim=-1), targets, strict=True):
        weight = torch.ones(part.shape[-1])
        weight[0] = EMPTY_WEIGHT
        losses.append(cross_entropy(part, target, weight=weight))
    return torch.stack(losses).sum()


@torch.no_grad()
def dense_shares(scores: torch.Tensor, targets: torch.Tensor) -> list[float]:
    """Shares of covered patches whose shape, colour and character are right, 0 to 1; nan where none is covered."""
    parts = scores.float().split(TARGETS, dim=-1)
    return [
        ((part.argmax(-1) == target)[target > 0]).float().mean().item()
        for part, target in zip(parts, targets, strict=True)
    ]
