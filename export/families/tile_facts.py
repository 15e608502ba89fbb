"""What the processor of a tile family does, as facts that the device can follow; transformers' own classes read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import BundleError
from contract.preprocessing import BICUBIC, ImageProcessing, Triple, VideoProcessing
from contract.tiles import Tiles

MAX_FRAMES = 768
LANCZOS = 1  # Pillow's number


@dataclass(frozen=True)
class TileFacts:
    """Normalisation of pictures and videos, and the rule of the tiles."""

    image: ImageProcessing
    video: VideoProcessing
    tiles: Tiles


def image_processor(folder: Path, resample: int = BICUBIC) -> Any:
    """transformers' image processor of a checkpoint, on Pillow.

    Args:
        resample: the filter that the device uses for this family, one of Pillow's numbers.

    Raises:
        BundleError: transformers cannot load it, or it does something that the device does not.
    """
    import transformers

    try:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    except (OSError, ValueError, ImportError) as error:
        raise BundleError(f"{folder}: transformers cannot load the image processor: {error}") from error
    wanted = {
        "resample": resample,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
    }
    for name, value in wanted.items():
        if (got := getattr(processor, name, value)) is not None and abs(float(got) - float(value)) > 1e-9:
            raise BundleError(f"{folder}: the image processor's {name} is {got!r}, the device does {value!r}")
    return processor


def side_of(size: Any, folder: Path) -> int:
    """The side of a square size: {"height": n, "width": n} or {"shortest_edge": n}.

    Raises:
        BundleError: the size is no square.
    """
    values = {value for key in ("height", "width", "shortest_edge") if (value := getattr(size, key, None)) is not None}
    if len(values) != 1:
        raise BundleError(f"{folder}: the image processor's size is {size}, a square is expected")
    return int(values.pop())


def mean_of(processor: Any) -> Triple:
    """The processor's mean of each channel on the 0..1 scale: red, green, blue."""
    red, green, blue = (float(value) for value in processor.image_mean)
    return red, green, blue


def anyres_tiles(folder: Path, config: Mapping[str, Any], processor: Any, max_map_tiles: int | None = None) -> Tiles:
    """How a processor cuts a picture into the tiles of a pinpoint, with a newline behind each row of their map.

    Raises:
        BundleError: a tile is no square, or the config has other pinpoints.
    """
    side, patch = side_of(processor.size, folder), config["vision_config"]["patch_size"]
    pinpoints = _pinpoints(processor, config, folder)
    seen, mean = side // patch * patch, mean_of(processor)
    return Tiles("anyres", side, seen, 1, patch, mean, pinpoints, has_newline=True, max_map_tiles=max_map_tiles)


def _pinpoints(processor: Any, config: Mapping[str, Any], folder: Path) -> tuple[tuple[int, int], ...]:
    """The processor's canvases, (height, width) in pixels.

    Raises:
        BundleError: the config, which the model follows, has others.
    """
    ours, theirs = (
        [[int(side) for side in pair] for pair in values]
        for values in (processor.image_grid_pinpoints, config["image_grid_pinpoints"])
    )
    if ours != theirs:
        raise BundleError(
            f"{folder}: the image processor has {len(ours)} image_grid_pinpoints, config.json has {len(theirs)} others: "
            "they must be equal"
        )
    return tuple((height, width) for height, width in ours)


def video_class(family: str) -> Any:
    """The class of the family's video processor, with Pillow's filters; None where the family has none."""
    from export.gate.reference import with_pillow

    module = f"transformers.models.{family}.video_processing_{family}"
    if find_spec(module) is None:
        return None
    found = vars(import_module(module))
    own = (value for key, value in found.items() if key.endswith("VideoProcessor") and value.__module__ == module)
    return with_pillow(next(own))


def video_processor(folder: Path, family: str, pictures: Any) -> Any:
    """transformers' video processor of a checkpoint, on Pillow.

    Args:
        pictures: the image processor; the graph normalises pictures and videos alike, and both become tiles of one
            size.

    Raises:
        BundleError: transformers cannot load it, or it prepares frames otherwise than `pictures` prepares pictures.
    """
    try:
        found = video_class(family).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{folder}: transformers cannot load the video processor: {error}") from error
    for name in ("image_mean", "image_std", "resample", "do_resize", "do_rescale", "do_normalize"):
        ours, theirs = (np.ravel(getattr(one, name)).tolist() for one in (pictures, found))
        if ours != theirs:
            raise BundleError(f"{folder}: the video processor's {name} is {theirs!r}, that of pictures {ours!r}")
    return found


def sampled(videos: Any) -> tuple[float | None, int | None]:
    """How many frames a video processor samples by itself: a second, and in all. Both are None where it takes all."""
    if not videos.do_sample_frames:
        return None, None
    fps, count = videos.fps, videos.num_frames
    return (None, int(count)) if count is not None else (None if fps is None else float(fps), None)


def facts(
    processor: Any,
    tiles: Tiles,
    frames: tuple[float | None, int | None] = (None, None),
    max_frames: int = MAX_FRAMES,
) -> TileFacts:
    """The facts of a processor: the bounds in pixels follow from the tiles, the normalisation is the processor's.

    Args:
        frames: how many frames the device takes where a message says nothing, a second of video and in all; it takes
            all where both are None.
        max_frames: the most frames of a video.

    Raises:
        BundleError: mean or std has not three channels.
    """
    mean, std = (tuple(float(value) for value in values) for values in (processor.image_mean, processor.image_std))
    if len(mean) != 3 or len(std) != 3:
        raise BundleError(f"image_mean is {mean} and image_std {std}, three channels are expected")
    most = max(
        [tiles.max_tiles, tiles.max_patches or 1, *[h * w // tiles.side**2 for h, w in tiles.pinpoints]]
    )  # without the whole picture
    resample = int(processor.resample)
    bounds = tiles.side**2, most * tiles.side**2
    return TileFacts(
        ImageProcessing(*bounds, mean, std, resample=resample),
        VideoProcessing(*bounds, mean, std, frames[0], 1, max_frames, num_frames=frames[1], resample=resample),
        tiles,
    )


def resolved(config: Mapping[str, Any]) -> Any:
    """transformers' config object of a config.json, with the defaults of its class."""
    import transformers

    values = dict(config)
    return transformers.AutoConfig.for_model(values.pop("model_type"), **values)
