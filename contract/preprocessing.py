"""Pixel budgets and normalisation, as the checkpoint's two processor files state them.

The Python defaults of the processors are other numbers (patch 14, CLIP statistics), so a missing file is an error.
"""

from dataclasses import dataclass
from typing import Any

from contract.errors import BundleError

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ImageProcessing:
    """min_pixels and max_pixels bound height x width after resizing; mean and std on the 0..1 scale."""

    min_pixels: int
    max_pixels: int
    mean: Triple
    std: Triple


@dataclass(frozen=True)
class VideoProcessing(ImageProcessing):
    """min_pixels and max_pixels bound frames x height x width; fps is the sampling rate in frames per second."""

    fps: float
    min_frames: int
    max_frames: int


def _triple(config: dict[str, Any], key: str, source: str) -> Triple:
    values = config[key]
    if len(values) != 3:
        raise BundleError(f"{source}: {key} is {values}, three channels are expected")
    return (float(values[0]), float(values[1]), float(values[2]))


def image_processing(config: dict[str, Any], source: str = "preprocessor_config.json") -> ImageProcessing:
    """Read preprocessor_config.json.

    Raises:
        BundleError: a key is missing.
    """
    try:
        size = config["size"]
        return ImageProcessing(
            int(size["shortest_edge"]),
            int(size["longest_edge"]),
            _triple(config, "image_mean", source),
            _triple(config, "image_std", source),
        )
    except KeyError as error:
        raise BundleError(f"{source} has no key {error.args[0]!r}") from error


def video_processing(config: dict[str, Any], source: str = "video_preprocessor_config.json") -> VideoProcessing:
    """Read video_preprocessor_config.json; fps 2, 4 to 768 frames where the file is silent, as transformers has it.

    Raises:
        BundleError: a key is missing.
    """
    image = image_processing(config, source)
    return VideoProcessing(
        image.min_pixels,
        image.max_pixels,
        image.mean,
        image.std,
        float(config.get("fps", 2)),
        int(config.get("min_frames", 4)),
        int(config.get("max_frames", 768)),
    )
