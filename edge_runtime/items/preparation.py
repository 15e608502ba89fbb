"""Sources to items: this module decodes a picture or video, and the model's family resizes and cuts it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import ModelCard
from contract.errors import MediaError
from contract.preprocessing import ImageProcessing, VideoProcessing
from edge_runtime import families
from edge_runtime.items.clip import Clip
from edge_runtime.items.grid_choice import Size
from edge_runtime.items.item import Item
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.video_options import VideoOptions
from edge_runtime.media.access import ANY_FILE
from edge_runtime.media.animation import Animation, is_animation
from edge_runtime.media.frames import Frames
from edge_runtime.media.opened_file import OpenedFile
from edge_runtime.media.picture import Picture, load_picture
from edge_runtime.media.source import Source

if TYPE_CHECKING:
    from edge_runtime.media.video_file import VideoFile

Video = Source | OpenedFile | Sequence[Picture] | NDArray[np.uint8]
FramesRead = Callable[[int, int], None]  # it gets the number of frames read so far and the number wanted
DEFAULTS = VideoOptions()
DEFAULT_FPS = 2.0  # for frames in a list or folder, as in qwen-vl-utils
PICTURE_DEFAULTS = PictureOptions()


def picture_item(
    source: Picture,
    how: ImageProcessing,
    card: ModelCard,
    options: PictureOptions = PICTURE_DEFAULTS,
    mode: str = "",
    sizes: Sequence[Size] = (),
) -> Item:
    """The item of a picture: the model's family resizes and cuts it.

    Args:
        mode: what the family says of the pictures of a conversation (families.Family.mode).
        sizes: height and width in pixels of the pictures that an accelerator takes; the picture gets the one that
            wastes least, where one fits it.

    Raises:
        MediaError: the picture cannot be decoded, its aspect ratio is above 200, or the options contradict each other.
    """
    image = load_picture(source)
    if sizes:
        options = options.on_grid(image.height, image.width, card.patch_size * card.merge_size, how, sizes)
    return families.find(card.family).picture(image, how, card, options, mode)


def _repeated(images: Iterable[Image.Image], indices: NDArray[np.int64]) -> Iterator[Image.Image]:
    """Each frame as often as `indices` has it: a checkpoint may ask for more frames than a video has."""
    for image, count in zip(images, np.unique(indices, return_counts=True)[1], strict=True):
        yield from (image for _ in range(count))


def _counted(images: Iterable[Image.Image], total: int, progress: FramesRead | None) -> Iterator[Image.Image]:
    for done, image in enumerate(images, 1):
        yield image
        if progress is not None:
            progress(done, total)


def _loaded(frames: Sequence[Picture]) -> Iterator[Image.Image]:
    """The pictures of frames; the error of one says which frame it is, and the name of its file."""
    for place in range(len(frames)):
        try:
            yield load_picture(frames[place])
        except MediaError as error:
            name = frames.name(place) if isinstance(frames, Frames) else ""
            raise MediaError(f"frame {place + 1} of {len(frames)}{name and f' ({name})'}: {error}") from error


def frames_item(
    frames: Sequence[Picture],
    how: VideoProcessing,
    card: ModelCard,
    options: VideoOptions = DEFAULTS,
    max_pixels: int | None = None,
    progress: FramesRead | None = None,
) -> Item:
    """The item of a video whose frames the caller has chosen, `options.sample_fps` a second (2 where it is None).

    Args:
        max_pixels: the most pixels of a frame, whatever the options and the bundle allow.
        progress: a function that gets the number of frames read so far and the number wanted.

    Raises:
        MediaError: there are no frames or too many, they differ in size, or a frame cannot be decoded.
    """
    options.check_source(is_file=False)
    if not frames:
        raise MediaError("video has no frames: give a list or folder of pictures that holds some")
    if len(frames) > how.max_frames:
        raise MediaError(f"video has {len(frames)} frames, up to {how.max_frames} are allowed: sample fewer")
    fps = options.raw_fps or options.sample_fps or DEFAULT_FPS
    rate = options.sample_fps or options.raw_fps or DEFAULT_FPS
    images = _counted(_loaded(frames), len(frames), progress)
    clip = Clip(images, np.arange(len(frames)), fps, options, max_pixels, rate)
    return families.find(card.family).clip(clip, how, card)


def video_item(
    source: Video,
    how: VideoProcessing,
    card: ModelCard,
    options: VideoOptions = DEFAULTS,
    max_pixels: int | None = None,
    progress: FramesRead | None = None,
) -> Item:
    """The item of a video: a file, its bytes, a list of frames, or a folder of frames (sorted by name).

    Args:
        source: any of these; an array of frames is uint8 (frames, height, width, 3 or 4).
        max_pixels: the most pixels of a frame, whatever the options and the bundle allow.
        progress: a function that gets the number of frames read so far and the number wanted.

    Raises:
        MediaError: the video cannot be decoded, or the options ask for frames that it does not have.
        MissingExtra: the source is a file, and PyAV is not installed.
    """
    found = ANY_FILE(source, "video")  # it leaves what the pipeline resolved as it is
    if isinstance(found, np.ndarray):  # (frames, height, width, 3 or 4)
        found = list(found)
    if isinstance(found, Sequence) and not isinstance(found, bytes):
        return frames_item(found, how, card, options, max_pixels, progress)
    if not isinstance(found, bytes | OpenedFile):
        raise MediaError(f"video is {type(source).__name__}, a path, bytes or a list of frames is expected")
    options.check_source(is_file=True)
    with _opened(found) as video:
        indices = families.find(card.family).indices(video.num_frames, video.fps, how, options)
        images = _counted(_repeated(video.frames(np.unique(indices)), indices), len(indices), progress)
        first, last = options.part(video.num_frames, video.fps)
        rate = len(indices) / (last - first + 1) * video.fps
        clip = Clip(images, indices, video.fps, options, max_pixels, rate, video.num_frames)
        return families.find(card.family).clip(clip, how, card)


def _opened(found: bytes | OpenedFile) -> "VideoFile | Animation":
    if is_animation(found[:12] if isinstance(found, bytes) else found.start(12)):
        data, name = (found, "video") if isinstance(found, bytes) else (found.read(), found.name)
        return Animation(data, name)
    from edge_runtime.media.video_file import VideoFile  # needs the extra `video`

    return VideoFile(found)
