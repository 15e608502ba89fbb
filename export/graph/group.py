"""A group of whole frames of one item: what one turn of the graph's loop gives to the tower."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Names of graph values.

    Attributes:
        patches: uint8 (frames * frame_patches, patch_width), in merge-block order.
        frames: int64 (1,), how many frames.
        height, width: int64 (1,), sides of a frame in patches.
        frame_patches: int64 (1,), height times width.
    """

    patches: str
    frames: str
    height: str
    width: str
    frame_patches: str
