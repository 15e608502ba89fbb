"""What the families of fixed tiles share: rows without a grid, one axis of positions.

Once contract.row_counts has read a request, an item's rows stand as a grid (runs, 1, rows of a run) with merge size 1,
so that nothing else asks which layout a family has.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.errors import BundleError
from contract.families import missing_key
from contract.tiles import Tiles

if TYPE_CHECKING:
    from contract.prompt import Prompt

LAYOUT, POSITIONS = "rows", "1d"


def runs(grid_thw: tuple[int, int, int], card: ModelCard) -> tuple[int, int]:
    """The item's grid is (runs, 1, rows of a run); see contract.families.Family."""
    number, height, width = grid_thw
    return number, height * width


def positions(prompt: "Prompt", card: ModelCard) -> tuple[NDArray[np.int64], int]:
    """0 .. S - 1 as int64 (1, S); see contract.families.Family."""
    return np.arange(len(prompt.input_ids), dtype=np.int64)[None], 0


def card_of(
    config: Mapping[str, Any],
    encoder_fingerprint: str,
    tiles: Tiles | None,
    *,
    image_token_id: int,
    video_token_id: int | None = None,
) -> ModelCard:
    """The card of a resolved config, into which transformers' classes have written their defaults.

    Raises:
        BundleError: a key is missing.
    """
    try:
        text = config["text_config"]
        return ModelCard(
            family=config["model_type"],
            hidden_size=text["hidden_size"],
            num_deepstack_levels=0,
            vocab_size=text["vocab_size"],
            max_position_embeddings=text["max_position_embeddings"],
            image_token_id=image_token_id,
            video_token_id=video_token_id,
            vision_start_token_id=config.get("vision_start_token_id"),
            vision_end_token_id=config.get("vision_end_token_id"),
            patch_size=tiles.patch if tiles else 1,
            merge_size=1,
            temporal_patch_size=1,
            encoder_fingerprint=encoder_fingerprint,
            tiles=tiles,
        )
    except KeyError as error:
        raise missing_key(error) from error


def token_id(config: Mapping[str, Any], *names: str) -> int:
    """The value of the first of these keys that the config has.

    Raises:
        BundleError: it has none.
    """
    for name in names:
        if isinstance(config.get(name), int):
            return int(config[name])
    raise BundleError(f"config.json has no {' or '.join(names)}: give a complete checkpoint")
