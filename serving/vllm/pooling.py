"""Embeddings and scores from vLLM's pooling runner, which runs a model for its last states and never for tokens.

vLLM gives the state as it is. This module makes of it what the other engine makes, so that one runner has both tasks:
vLLM's own score needs another conversion of the model, in a server of its own.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from vllm import PoolingParams

from contract.tasks import EMBED
from serving.tasks import answer_ids

STATE = PoolingParams(task="embed", use_activation=False)  # not normalised: a score needs its length
HEADS = ("lm_head.weight", "embed_tokens.weight")  # the second where the two are tied


class Pooling:
    """Makes the answers of a checkpoint's tasks without tokens."""

    def __init__(self, folder: Path) -> None:
        ids = answer_ids(folder)
        self._row = None if ids is None else _difference(folder, ids)  # (H,)

    def pooled(self, task: str, state: torch.Tensor) -> NDArray[np.float32]:
        """The embedding (H,) of a state (H,), its length 1; or its score (1,), sigmoid(yes - no)."""
        state = state.float()
        if task == EMBED:
            return torch.nn.functional.normalize(state, dim=0).numpy()
        assert self._row is not None  # for mypy: a model without the two tokens has no such task
        return torch.sigmoid(self._row @ state)[None].numpy()


def _difference(folder: Path, ids: tuple[int, int]) -> torch.Tensor | None:
    """The row (H,) of the output projection for yes minus the one for no; None where the checkpoint has neither."""
    for ending in HEADS:
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118  it is no mapping
                    if name.endswith(ending):
                        rows = file.get_slice(name)
                        yes, no = (torch.as_tensor(rows[place : place + 1][0]).float() for place in ids)
                        difference: torch.Tensor = yes - no
                        return difference
    return None
