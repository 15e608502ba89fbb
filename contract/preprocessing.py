"""Pixel budgets, filter, frames and normalisation: what both machines must know of a checkpoint's processors."""

from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

from contract.errors import BundleError
from contract.typed import Between, Pixels, Size

Value = Annotated[float, Between(-1000, 1000)]
Triple = tuple[Value, Value, Value]
BICUBIC = 3  # Pillow's number, which transformers uses, too


@dataclass(frozen=True)
class ImageProcessing:
    """min_pixels and max_pixels bound height x width after the resize. mean and std are on the 0..1 scale and contain
    the checkpoint's own rescale_factor. resample is the filter, one of Pillow's numbers."""

    min_pixels: Pixels
    max_pixels: Pixels
    mean: Triple
    std: Triple
    resample: Annotated[int, Between(0, 5)] = field(default=BICUBIC, kw_only=True)

    def __post_init__(self) -> None:
        if self.min_pixels > self.max_pixels:
            raise BundleError(f"min_pixels is {self.min_pixels}, at most max_pixels {self.max_pixels} is expected")
        if not all(self.std):
            raise BundleError(f"std is {list(self.std)}, pixels are divided by it: no zero is allowed")


@dataclass(frozen=True)
class VideoProcessing(ImageProcessing):
    """min_pixels and max_pixels bound frames x height x width.

    Attributes:
        fps: how many frames the device takes of each second of video; None where num_frames says how many it takes of
            the whole video, or where it takes all.
        min_frames, max_frames: bounds of the number of frames.
        max_frame_tokens: most embedding rows of one frame, for checkpoints that cap them (transformers'
            cap_pixels_per_frame); None leaves the budget to the video as a whole.
        max_video_tokens: most embedding rows of a video, of which each frame has an equal share, for families whose
            min_pixels and max_pixels bound one frame; None leaves the budget to those two.
    """

    fps: Annotated[float, Between(1e-6, 1e6)] | None
    min_frames: Size
    max_frames: Size
    num_frames: Size | None = field(default=None, kw_only=True)
    max_frame_tokens: Size | None = field(default=None, kw_only=True)
    max_video_tokens: Size | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_frames > self.max_frames:
            raise BundleError(f"min_frames is {self.min_frames}, at most max_frames {self.max_frames} is expected")


def facts(processing: ImageProcessing) -> dict[str, Any]:
    """What goes into an encoder's name. A field that a later version added goes in only where it differs from its
    default, so that encoders keep their names."""
    neutral = {f.name: f.default for f in fields(processing) if f.kw_only}
    return {name: value for name, value in asdict(processing).items() if name not in neutral or value != neutral[name]}
