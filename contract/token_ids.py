"""Checks the token ids of a prompt, and the two optional tensors that say again what they say."""

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.errors import InvalidInput
from contract.grids import num_rows, runs
from contract.items import is_pad
from contract.limits import Limits


def max_prompt_tokens(card: ModelCard, limits: Limits) -> int:
    """How many tokens a prompt may have: the server's limit, or the model's context where that is smaller."""
    return min(limits.max_prompt_tokens, card.max_position_embeddings)


def check_ids(input_ids: NDArray[np.int64], card: ModelCard, limits: Limits) -> None:
    """Check the number of ids and that each is in the vocabulary.

    Raises:
        InvalidInput: there are none or too many, or one is no id of the vocabulary.
    """
    allowed = max_prompt_tokens(card, limits)
    if not input_ids.size:
        raise InvalidInput("the prompt has 0 tokens, 1 is needed at least: send some text", check="no-tokens")
    if input_ids.size > allowed:
        raise InvalidInput(
            f"input_ids has {input_ids.size} tokens, {allowed} are allowed: send smaller pictures or less text",
            check="ids-length",
        )
    bad = np.flatnonzero((input_ids < 0) | (input_ids >= card.vocab_size))
    if bad.size:
        raise InvalidInput(
            f"input_ids[{bad[0]}] is {input_ids[bad[0]]}, ids from 0 to {card.vocab_size - 1} are allowed",
            check="ids-range",
        )


def check_pads(input_ids: NDArray[np.int64], name: str, token: int, grid: NDArray[np.int64], card: ModelCard) -> None:
    """Check that the pads of one kind stand in runs, one run a frame, as long as the frame's rows.

    Args:
        name: the tensor with the items' grids, for the message.
        token: the id of the pad.
        grid: int64 (k, 3) in patches.

    Raises:
        InvalidInput: there are more pads than rows or fewer, or a run is interrupted.
    """
    places = np.flatnonzero(input_ids == token)
    expected = num_rows(grid, card)
    if places.size != expected:
        raise InvalidInput(f"input_ids has {places.size} pad tokens {token}, {name} asks for {expected}", check="pads")
    start = 0
    for item, (t, h, w) in enumerate(grid.tolist()):
        number, length = runs((t, h, w), card)
        for frame in range(number):
            run = places[start : start + length]
            if run[-1] - run[0] != length - 1:
                raise InvalidInput(
                    f"input_ids: the {length} pad tokens of {name}[{item}], frame {frame}, do not stand side by side from {run[0]} on",
                    check="pad-runs",
                )
            start += length


def check_mask(attention_mask: NDArray[np.int64] | None, input_ids: NDArray[np.int64]) -> None:
    """Check that a mask, where the client sent one, leaves out no token.

    Raises:
        InvalidInput: it has another shape than the ids, or a value that is not 1.
    """
    if attention_mask is not None and not (attention_mask.shape == input_ids.shape and (attention_mask == 1).all()):
        raise InvalidInput(
            f"attention_mask has shape {list(attention_mask.shape)}, all ones of shape {list(input_ids.shape)} are expected",
            check="mask",
        )


def check_positions(positions: NDArray[np.int64] | None, input_ids: NDArray[np.int64], card: ModelCard) -> None:
    """Compare the pads' places, where the client sent them, with those of the ids.

    Raises:
        InvalidInput: they are others.
    """
    if positions is None:
        return
    pads = np.flatnonzero(is_pad(input_ids, card))
    if not np.array_equal(positions, pads):
        raise InvalidInput(
            f"vision_token_positions has {positions.size} places that are not the {pads.size} pad places of input_ids: send "
            "those, or leave it out",
            check="positions",
        )
