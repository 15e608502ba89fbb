"""What a task without tokens makes of the last token: an embedding of its state, or a score of its logits."""

import numpy as np
import torch
from numpy.typing import NDArray

from contract.tasks import EMBED


def pooled(task: str, values: torch.Tensor, answer_ids: tuple[int, int] | None) -> NDArray[np.float32]:
    """The embedding (H,) of a state (H,), its length 1; or the score (1,) of logits (V,).

    A score is sigmoid(yes - no), the probability of yes where only the two tokens count.

    Args:
        answer_ids: the tokens yes and no; a score needs them.
    """
    values = values.float()
    if task == EMBED:
        return torch.nn.functional.normalize(values, dim=0).cpu().numpy()
    assert answer_ids is not None  # for mypy: a model without them has no such task
    yes, no = answer_ids
    return torch.sigmoid(values[yes] - values[no])[None].cpu().numpy()
