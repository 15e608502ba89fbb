"""Prompt text and items to token ids."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.expansion import around, expand_pads, with_around
from contract.items import is_pad
from contract.rows import RowMasks
from edge_runtime import families
from edge_runtime.bundle import Bundle
from edge_runtime.encoded_item import EncodedItem
from edge_runtime.items.item import Item
from edge_runtime.prompts.tokens import token_ids


def prompt_ids(text: str, items: Sequence[Item], bundle: Bundle, mark: str = "") -> NDArray[np.int64]:
    """Token ids, int64 (S,), equal to those of the transformers processor of the checkpoint.

    Args:
        text: what the chat template made, one pad per item.
        items: pictures and videos in prompt order.
        mark: the mark in the pad names that somebody typed (edge_runtime.prompts.own_pads); "" where nobody did.

    Raises:
        InvalidInput: the pads in the text are not those of the items.
    """
    card = bundle.manifest.card
    written = families.find(card.family).write(text, items, bundle)
    pieces = written.split(mark) if mark else [written]
    ids = [token for piece in pieces for token in token_ids(bundle.tokenizer, piece, add_special_tokens=False)]
    whole = np.array(with_around(ids, *around(bundle.tokenizer)), np.int64)
    return expand_pads(whole, _grids(items, False), _grids(items, True), card)


def with_kept(input_ids: NDArray[np.int64], items: Sequence[EncodedItem], card: ModelCard) -> NDArray[np.int64]:
    """A prompt without the pads of the rows that the items' rules drop, int64 (S',).

    Args:
        input_ids: int64 (S,) with a pad for every row of the items, in prompt order.
    """
    if not any(item.rule.drop_share for item in items):
        return input_ids
    masks = [item.masks("fp16") or RowMasks.whole(len(item.main)) for item in items]
    is_kept = np.ones(len(input_ids), np.bool_)
    is_kept[is_pad(input_ids, card)] = np.concatenate([mask.kept.ravel() for mask in masks])
    return input_ids[is_kept]


def _grids(items: Sequence[Item], is_video: bool) -> NDArray[np.int64]:
    """Grids of the pictures or of the videos, (k, 3), in prompt order."""
    chosen = [item.grid_thw for item in items if item.is_video == is_video]
    return np.array(chosen, np.int64).reshape(-1, 3)
