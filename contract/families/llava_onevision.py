"""LLaVA-OneVision: LLaVA's card with pads of videos beside those of pictures."""

from collections.abc import Mapping
from typing import Any

from contract.card import ModelCard
from contract.families.tiles import LAYOUT, POSITIONS, card_of, positions, runs, token_id
from contract.tiles import Tiles

__all__ = ["LAYOUT", "POSITIONS", "card", "positions", "runs"]


def card(config: Mapping[str, Any], encoder_fingerprint: str, tiles: Tiles | None = None) -> ModelCard:
    """The card of a resolved config; see contract.families.Family."""
    return card_of(
        config,
        encoder_fingerprint,
        tiles,
        image_token_id=token_id(config, "image_token_id", "image_token_index"),
        video_token_id=token_id(config, "video_token_id", "video_token_index"),
    )
