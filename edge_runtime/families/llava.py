"""LLaVA-1.5 on the device: a picture becomes one tile, cropped or padded as the checkpoint's processor says."""

from PIL import Image

from contract.card import ModelCard
from contract.errors import MediaError
from contract.preprocessing import ImageProcessing, VideoProcessing
from edge_runtime.families.tiles import MARKS, arrange, check_picture, frame_indices, item, mode, tiles_of, write
from edge_runtime.items.clip import Clip
from edge_runtime.items.item import Item
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.tiles import one_tile

__all__ = ["MARKS", "arrange", "clip", "indices", "mode", "picture", "write"]

indices = frame_indices


def picture(image: Image.Image, how: ImageProcessing, card: ModelCard, options: PictureOptions, mode: str) -> Item:
    """One tile; see edge_runtime.families.Family."""
    check_picture(image, options)
    tiles = tiles_of(card)
    return item(one_tile(image, tiles), tiles, 1, tiles.num_rows)


def clip(clip: Clip, how: VideoProcessing, card: ModelCard) -> Item:
    """Refuse a video; see edge_runtime.families.Family."""
    raise MediaError("a video was given, this model takes pictures only: send its frames as pictures")
