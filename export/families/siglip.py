"""SigLIP and SigLIP 2 of one size as embedding models: a query pools a picture, the last token stands for a text."""

from typing import Any

from contract.errors import BundleError
from export.families.embedder_pictures import facts_of, features, pixels
from export.families.pooled_tower import PooledTower, body, for_bytes, pooled_tower
from export.families.text_tower import TOWER, TextTower, text_tower

__all__ = ["PADS_TO_MAX", "body", "facts_of", "features", "for_bytes", "pictures", "pixels", "texts"]

PADS_TO_MAX = True  # the text tower learned from texts that were filled to its length, and it sees the filling


def pictures(config: Any) -> PooledTower:
    """See export.families.EmbedderFamily."""
    vision = config.vision_config
    check_head(vision)
    return pooled_tower(vision, vision.hidden_size, side=vision.image_size // vision.patch_size, has_class_row=False)


def check_head(vision: Any) -> None:
    """Refuse a tower without the head that pools.

    Raises:
        BundleError: the config has none.
    """
    if not getattr(vision, "vision_use_head", True):
        raise BundleError("vision_config.vision_use_head is false, the graph has the pooling head")


def texts(config: Any) -> TextTower:
    """See export.families.EmbedderFamily."""
    text = config.text_config
    width = getattr(text, "projection_size", None) or text.hidden_size
    return text_tower(text, width, f"{TOWER}head", has_bias=True, is_causal=False, end_id=None)
