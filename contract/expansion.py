"""One pad token per picture or frame becomes one pad token per embedding row; both machines do it the same way.

The functions work on ids: a pad token is special, so the tokenizer never joins it with its neighbours.
"""

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from contract.card import ModelCard
from contract.errors import InvalidInput
from contract.grids import runs


def around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The tokens that a tokenizer puts in front of every text and behind it: <s> in the Llama families, the end mark in
    some embedding models, nothing in most others."""
    plain, whole = (tokenizer.encode("a", add_special_tokens=adds).ids for adds in (False, True))
    if not plain:  # no token of this tokenizer has an a
        return whole, []
    for place in range(len(whole) - len(plain) + 1):
        if whole[place : place + len(plain)] == plain:
            return whole[:place], whole[place + len(plain) :]
    return [], []


def with_around(ids: list[int], start: list[int], end: list[int]) -> list[int]:
    """A text's token ids between the tokens that its tokenizer puts around every text. A text that begins with `start`
    has them already.

    The rule is `apply_chat_template` of transformers' ProcessorMixin.
    """
    return ids if start and ids[: len(start)] == start else [*start, *ids, *end]


def expand_pads(
    input_ids: NDArray[np.int64],
    image_grid_thw: NDArray[np.int64],
    video_grid_thw: NDArray[np.int64],
    card: ModelCard,
) -> NDArray[np.int64]:
    """Repeat every pad token as often as its run has rows; returns int64 (S,).

    Args:
        input_ids: int64 (tokens,) with one pad a run: one image pad per picture, one video pad per frame pair.
        image_grid_thw, video_grid_thw: int64 (k, 3) in patches.

    Raises:
        InvalidInput: the prompt has another number of pads than the grids have frames.
    """
    counts = np.ones(len(input_ids), np.int64)
    kinds = (
        ("image", card.image_token_id, image_grid_thw),
        ("video", card.video_token_id, video_grid_thw),
    )
    for kind, token, grid in kinds:
        places = np.flatnonzero(input_ids == token)
        numbers, lengths = np.array([runs((t, h, w), card) for t, h, w in grid.tolist()], np.int64).reshape(-1, 2).T
        rows = np.repeat(lengths, numbers)  # one entry a run
        if places.size != rows.size:
            raise InvalidInput(
                f"the prompt has {places.size} {kind} pads, {kind}_grid_thw has {rows.size} frames: one each is expected",
                check="text-pads",
            )
        counts[places] = rows
    return np.repeat(input_ids, counts)
