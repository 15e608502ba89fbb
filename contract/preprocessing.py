"""Pixel budgets, filter, frames and normalisation: what both machines must know of a checkpoint's processors."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

Triple = tuple[float, float, float]
BICUBIC = 3  # Pillow's number, and so transformers'


@dataclass(frozen=True)
class ImageProcessing:
    """min_pixels and max_pixels bound height x width after resizing; mean and std on the 0..1 scale, with a checkpoint's
    own rescale_factor in them; resample is the filter, one of Pillow's numbers."""

    min_pixels: int
    max_pixels: int
    mean: Triple
    std: Triple
    resample: int = field(default=BICUBIC, kw_only=True)


@dataclass(frozen=True)
class VideoProcessing(ImageProcessing):
    """min_pixels and max_pixels bound frames x height x width.

    Attributes:
        fps: frames looked at per second of video; None where num_frames says how many in all, or all are.
        max_frame_tokens: most embedding rows of one frame, for checkpoints that cap them (transformers'
            cap_pixels_per_frame); None leaves the budget to the video as a whole.
    """

    fps: float | None
    min_frames: int
    max_frames: int
    num_frames: int | None = field(default=None, kw_only=True)
    max_frame_tokens: int | None = field(default=None, kw_only=True)


def facts(processing: ImageProcessing) -> dict[str, Any]:
    """What goes into an encoder's name. A field that a later version added counts where it is not neutral, so that
    encoders keep their names."""
    neutral = {f.name: f.default for f in fields(processing) if f.kw_only}
    return {name: value for name, value in asdict(processing).items() if name not in neutral or value != neutral[name]}
