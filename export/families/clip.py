"""CLIP as an embedding model: class row and end token, each projected."""

from typing import Any

from export.families.embedder_pictures import facts_of, features, pixels
from export.families.pooled_tower import PooledTower, body, for_bytes, pooled_tower
from export.families.text_tower import TextTower, text_tower

__all__ = ["PADS_TO_MAX", "body", "facts_of", "features", "for_bytes", "pictures", "pixels", "texts"]

PADS_TO_MAX = False  # a token sees only the tokens before it, so no text sees what stands behind its end
OLD_END_ID = 2  # older configs have it; transformers reads it as "the token of the highest number"


def pictures(config: Any) -> PooledTower:
    """See export.families.EmbedderFamily."""
    vision = config.vision_config
    return pooled_tower(vision, config.projection_dim, side=vision.image_size // vision.patch_size, has_class_row=True)


def texts(config: Any) -> TextTower:
    """See export.families.EmbedderFamily."""
    text = config.text_config
    end_id = -1 if text.eos_token_id == OLD_END_ID else text.eos_token_id
    return text_tower(text, config.projection_dim, "text_projection", has_bias=False, is_causal=True, end_id=end_id)
