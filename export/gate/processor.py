"""The processor gate: it proves that the device prepares pictures, clips and frames as transformers does.

Both sides get the same drawn pictures and clips; grids, times and every pixel must be equal. The gate compares sizes
and chosen frames for many more shapes, because they cost nothing.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.errors import MediaError, ParityError
from contract.grids import runs
from contract.preprocessing import VideoProcessing
from edge_runtime import families
from edge_runtime.bundle import Bundle
from edge_runtime.items.clip import Clip
from edge_runtime.items.item import Item
from edge_runtime.items.patches import normalised
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.preparation import picture_item
from edge_runtime.items.resize import MAX_ASPECT_RATIO
from edge_runtime.items.video_options import VideoOptions, timestamps
from export import families as export_families

Row = dict[str, Any]  # gate, compared, cases
MAX_GREY_ERROR = 0.02  # in grey levels: how far float32 may move a byte's value when it normalises
PICTURES = (  # mode, width, height
    ("RGB", 300, 200), ("RGB", 640, 480), ("RGB", 33, 47), ("RGB", 437, 300), ("RGB", 96, 96), ("RGB", 1024, 40),
    ("L", 130, 90), ("RGBA", 200, 120), ("P", 64, 200),
)  # fmt: skip
NOTHING = (
    "Nothing was published: export with the transformers version that this checkpoint was saved with, or report it"
)
SIDES = (1, 9, 31, 32, 33, 64, 100, 255, 480, 640, 777, 1080, 1920, 4000, 9001)
CLIPS = ((30, 64, 96, 10.0), (7, 50, 70, 2.0), (41, 33, 120, 29.97), (9, 96, 96, 5.0), (5, 200, 150, 0.5))
COUNTS = (2, 3, 4, 5, 7, 8, 30, 31, 100, 301, 1799, 20_000, 100_001)
RATES = (0.5, 1.0, 2.0, 12.5, 23.976, 24.0, 25.0, 29.97, 30.0, 60.0)


def processor_gate(reference: Any, bundle: Bundle) -> list[Row]:
    """Compare the device's preparation of pictures and videos with transformers'.

    Args:
        reference: transformers' processor (export.gate.reference).
        bundle: the bundle that the export is about to publish.

    Returns:
        a row for each kind of comparison.

    Raises:
        ParityError: something differs; the message names the case and both values.
    """
    rows = (
        ("pictures: grid and every pixel", _pictures(reference, bundle)),
        ("sizes of pictures", _picture_sizes(reference, bundle)),
        ("clips: frames, grid, times and every pixel", _clips(reference, bundle)),
        ("sizes of videos", _video_sizes(reference, bundle)),
        ("frames of a video and their times", _frames(reference, bundle)),
    )
    return [{"gate": "processor", "compared": name, "cases": sum(1 for _ in cases)} for name, cases in rows]


def drawn(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """A picture with smooth parts, edges and noise, uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = 127 + 90 * np.sin(rows / 9 + seed) * np.cos(columns / 7)
    noise = random.normal(0, 40, (height, width, 3)) * (columns > width // 2)[..., None]
    picture: NDArray[np.uint8] = np.clip(waves[..., None] + noise + [0, 20, -20], 0, 255).astype(np.uint8)
    return picture


def _pictures(reference: Any, bundle: Bundle) -> Iterator[None]:
    manifest = bundle.manifest
    for seed, (mode, width, height) in enumerate(PICTURES):
        picture = Image.fromarray(drawn(seed, height, width)).convert(mode)
        if mode == "RGBA":
            picture.putalpha(Image.fromarray(drawn(seed + 1, height, width)).convert("L"))
        name = f"a picture of {width} x {height} ({mode})"
        ours = picture_item(picture, manifest.image, manifest.card)
        original = reference.image_processor(images=[picture], return_tensors="np")
        _same(name, "grid", list(ours.grid_thw), original["image_grid_thw"][0].tolist())
        _same_pixels(name, ours, original["pixel_values"], bundle)
        yield


def _picture_sizes(reference: Any, bundle: Bundle) -> Iterator[None]:
    card, image = bundle.manifest.card, bundle.manifest.image
    for height, width in product(SIDES, SIDES):
        if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            continue
        found = PictureOptions().size(height, width, card.patch_size * card.merge_size, image)
        original = reference.image_processor.get_number_of_image_patches(height, width)
        _same(f"a picture of {width} x {height}", "patches", found[0] * found[1] // card.patch_size**2, original)
        yield


def _clips(reference: Any, bundle: Bundle) -> Iterator[None]:
    from transformers.video_utils import VideoMetadata

    manifest = bundle.manifest
    family = families.find(manifest.card.family)
    for count, height, width, fps in CLIPS:
        name = f"a clip of {count} frames of {width} x {height} at {fps:g} a second"
        frames = np.stack([drawn(seed, height, width) for seed in range(count)])
        indices = family.indices(count, fps, manifest.video, VideoOptions())
        chosen = (Image.fromarray(frames[index]) for index in indices)
        rate = len(indices) / count * fps
        ours = family.clip(Clip(chosen, indices, fps, rate=rate), manifest.video, manifest.card)
        original = _their_clip(reference, frames, VideoMetadata(total_num_frames=count, fps=fps), manifest.video)
        _same_frames(name, indices, original["video_metadata"][0].frames_indices, count, manifest.card.family)
        _same(name, "grid", list(ours.grid_thw), original["video_grid_thw"][0].tolist())
        _same_pixels(name, ours, original["pixel_values_videos"], bundle)
        if ours.seconds is not None:
            sampled = original["video_metadata"][0].sampled_fps
            original_s = float(np.float32(manifest.card.temporal_patch_size / sampled))
            _same(name, "seconds from one frame pair to the next", ours.seconds, original_s)
        yield


def _their_clip(reference: Any, frames: NDArray[np.uint8], metadata: Any, video: VideoProcessing) -> Any:
    """What transformers' processor makes of a clip. A processor that does not choose frames by itself gets the rate."""
    processor, told = reference.video_processor, {}
    if processor.fps is None and processor.num_frames is None and video.fps is not None:
        told = {"do_sample_frames": True, "fps": video.fps}
    return processor(frames, video_metadata=[metadata], return_metadata=True, return_tensors="np", **told)


def _video_sizes(reference: Any, bundle: Bundle) -> Iterator[None]:
    card, video = bundle.manifest.card, bundle.manifest.video
    depth, size_of = card.temporal_patch_size, families.find(card.family).frame_size
    for count, height, width in product((2, 3, 8, 61, 768), SIDES[1::2], SIDES[1::2]):
        if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            continue
        name = f"a video of {count} frames of {width} x {height}"
        try:
            original = reference.video_processor.get_num_of_video_patches(count, height, width, {})
        except ValueError as error:  # the enlarged frame is too long and thin
            original = str(error)
        try:
            found = size_of(count, height, width, video, card, VideoOptions(), None)
        except MediaError:
            if not isinstance(original, str):
                raise
            continue
        _same(name, "patches", -(-count // depth) * found[0] * found[1] // card.patch_size**2, original)
        yield


def _frames(reference: Any, bundle: Bundle) -> Iterator[None]:
    from transformers.video_utils import VideoMetadata

    card, processor = bundle.manifest.card, reference.video_processor
    pad, merge, depth = _token(card.video_token_id, bundle), card.merge_size, card.temporal_patch_size
    family, video = families.find(card.family), bundle.manifest.video
    fps = video.fps if processor.fps is None and processor.num_frames is None else processor.fps
    wrapper = "{}" if bundle.manifest.has_outer_video_wrapper else _framed("{}", bundle)
    for count, source_fps in product(COUNTS, RATES):
        name = f"a video of {count} frames at {source_fps:g} a second"
        metadata = VideoMetadata(total_num_frames=count, fps=source_fps)
        original = processor.sample_frames(metadata=metadata, num_frames=processor.num_frames, fps=fps)
        ours = family.indices(count, source_fps, video, VideoOptions())
        _same_frames(name, ours, original, count, card.family)
        metadata.frames_indices = ours
        grid = (-(-len(ours) // depth), merge, merge)  # one embedding row a frame
        given = {"video_grid_thw": np.array([grid]), "video_metadata": [metadata]}
        item = Item(np.empty((0, 0), np.uint8), grid, timestamps(ours, source_fps, depth))
        written = family.write(wrapper.format(pad), [item], bundle)
        length = runs(grid, card)[1]  # pads of a run, which the device writes once it has encoded the text
        _same(name, "times", written.replace(pad, pad * length), reference.replace_video_token(given, 0))
        yield


def _token(token_id: int | None, bundle: Bundle) -> str:
    return "" if token_id is None else bundle.token(token_id)


def _framed(text: str, bundle: Bundle) -> str:
    card = bundle.manifest.card
    return _token(card.vision_start_token_id, bundle) + text + _token(card.vision_end_token_id, bundle)


def _same_frames(name: str, ours: NDArray[np.int64], found: Any, count: int, family: str) -> None:
    """Require equal frames. A family may allow for transformers' rounding: a few frames may then be the frame beside,
    and transformers' last frame may lie behind the video."""
    original = np.array([int(index) for index in found], np.int64)
    rounded = export_families.find(family).FRAMES_ROUNDED
    if rounded:
        original = original[original < count]
    _same(name, "number of frames", len(ours), len(original))
    apart = np.flatnonzero(ours != original)
    allowed = max(1, rounded * len(ours)) if rounded else 0
    if len(apart) > allowed or np.abs(ours - original)[apart].max(initial=0) > 1:
        place = int(apart[0])
        _same(name, f"frame {place}", int(ours[place]), int(original[place]))


def _same_pixels(name: str, ours: Item, pixel_values: NDArray[np.float32], bundle: Bundle) -> None:
    image = bundle.manifest.image
    found = normalised(ours.patches, image.mean, image.std)
    _same(name, "patches and their width", list(found.shape), list(pixel_values.shape))
    error = float(np.abs(found - pixel_values).max() * 255 * max(image.std))
    if not error <= MAX_GREY_ERROR:
        raise ParityError(
            f"the device prepares {name} otherwise than transformers: a pixel differs by {error:.2f} grey levels. "
            f"{NOTHING}"
        )


def _same(name: str, what: str, device: Any, reference: Any) -> None:
    if device != reference:
        raise ParityError(
            f"the device prepares {name} otherwise than transformers: {what} {device!r} here, {reference!r} there. {NOTHING}"
        )
