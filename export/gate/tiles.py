"""The gates of tile families: they compare tiles and rows with those of transformers' processor."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from contract.errors import BundleError, ParityError
from contract.manifest import CHAT_TEMPLATE, TOKENIZER, Manifest
from contract.tiles import Tiles
from edge_runtime import families
from edge_runtime.bundle import Bundle
from edge_runtime.families.tiles import tiles_of
from edge_runtime.items.item import Item
from edge_runtime.items.patches import to_patches
from edge_runtime.items.preparation import frames_item, picture_item
from edge_runtime.items.video_options import VideoOptions
from export import families as export_families
from export.families import TileFamily
from export.families.tile_facts import video_class
from export.gate.processor import COUNTS, NOTHING, RATES, drawn
from export.gate.reference import SHOWN, quiet, unchecked
from export.gate.tile_prompts import tile_prompts

SIZES = (
    *((336, 336), (100, 700), (700, 100), (437, 300), (480, 641), (37, 53), (333, 1000), (672, 672), (1001, 999)),
    *((384, 384), (448, 448), (512, 512), (1, 90), (90, 1), (55, 57), (224, 224), (640, 427), (720, 1280), (768, 1025)),
    *((1100, 450), (200, 210), (1300, 1299)),
)
CLIPS = ((3, 60, 90), (2, 336, 336), (4, 91, 40))


def tile_gates(checkpoint: Path, work: Path, manifest: Manifest) -> Manifest:
    """As export.gate.inputs.input_gates, for families of tiles: the manifest with special tokens and gates."""
    with quiet():
        reference = load_reference(checkpoint, manifest.card.family)
        manifest = replace(manifest, special_tokens=dict(reference.tokenizer.special_tokens_map))
        template = (work / CHAT_TEMPLATE).read_text(encoding="utf-8")
        bundle = Bundle(work, manifest, Tokenizer.from_file(str(work / TOKENIZER)), template)
        rows = [
            ("processor", "pictures: every pixel of every tile", _pictures(reference, bundle)),
            ("rows", "rows of pictures in the prompt's order", _rows(checkpoint, bundle)),
            (
                "prompt",
                "token ids of conversations with pictures and videos",
                tile_prompts(reference, bundle, with_videos=has_videos(reference)),
            ),
        ]
        if has_videos(reference):
            rows.insert(1, ("processor", "clips: every pixel of every frame", _clips(reference, bundle)))
            rows.insert(2, ("processor", "frames of a video", _frames(reference, bundle)))
        gates = [{"gate": gate, "compared": name, "cases": sum(1 for _ in cases)} for gate, name, cases in rows]
        return replace(manifest, gates=gates)


def load_reference(folder: Path, family: str) -> Any:
    """transformers' processor of a checkpoint; its video processor, where the family has one, computes with Pillow.

    Raises:
        BundleError: transformers cannot load it.
    """
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    name = PROCESSOR_MAPPING_NAMES[family]
    processor = getattr(import_module(f"transformers.models.{family}.processing_{family}"), name)
    try:
        parts = [
            AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True),
            AutoTokenizer.from_pretrained(folder, local_files_only=True),
            *([videos.from_pretrained(folder, local_files_only=True)] if (videos := video_class(family)) else []),
        ]
        values, _ = processor.get_processor_dict(folder, local_files_only=True)
        kept = {key: value for key, value in values.items() if not isinstance(value, dict)}
        return unchecked(processor).from_args_and_dict(parts, kept)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{folder}: transformers cannot load its processor: {str(error)[:SHOWN]}") from error


def has_videos(reference: Any) -> bool:
    """Whether a processor takes videos."""
    return getattr(reference, "video_processor", None) is not None


def _mode(bundle: Bundle, pictures: int) -> str:
    return families.find(bundle.manifest.card.family).mode(pictures)


def _pictures(reference: Any, bundle: Bundle) -> Iterator[None]:
    """Compare every picture alone, and again beside another picture where the family then cuts it otherwise."""
    drawings = [Image.fromarray(drawn(seed, height, width)) for seed, (height, width) in enumerate(SIZES)]
    for picture in drawings:
        _compare_pictures(reference, bundle, [picture])
        yield
    if _mode(bundle, 1) != _mode(bundle, 2):
        for pair in zip(drawings[::2], drawings[1::2], strict=True):
            _compare_pictures(reference, bundle, list(pair))
            yield


def _compare_pictures(reference: Any, bundle: Bundle, pictures: list[Image.Image]) -> None:
    manifest, defaults = bundle.manifest, dict(getattr(reference, "images_kwargs", {}))  # InternVL asks for tiles here
    mode = _mode(bundle, len(pictures))
    ours = [picture_item(picture, manifest.image, manifest.card, mode=mode) for picture in pictures]
    given = reference.image_processor(images=[pictures], return_tensors="np", **defaults)
    sizes = " and ".join(f"{picture.width} x {picture.height}" for picture in pictures)
    compare_pixels(
        f"a picture of {sizes}", ours, given["pixel_values"], reference.image_processor, tiles_of(manifest.card)
    )


def _rows(checkpoint: Path, bundle: Bundle) -> Iterator[None]:
    """Compare the device's work behind the graph, over random rows: no two are alike, so a wrong place shows."""
    from transformers import AutoConfig

    card, whole = bundle.manifest.card, AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    ours, original = families.find(card.family), cast(TileFamily, export_families.find(card.family))
    newline = bundle.newline if tiles_of(card).has_newline else None
    random, pairs = np.random.default_rng(0), _mode(bundle, 1) != _mode(bundle, 2)
    for (height, width), others in product(SIZES, (False, True) if pairs else (False,)):
        picture = Image.new("RGB", (width, height))
        item = picture_item(picture, bundle.manifest.image, card, mode=_mode(bundle, 1 + others))
        shape = item.tower_thw[0], tiles_of(card).num_rows, card.hidden_size
        parts = random.standard_normal(shape, np.float32)
        found = ours.arrange(parts.reshape(-1, card.hidden_size), [item], bundle)
        expected = original.packed(whole, parts, height, width, newline)
        if len(found) != item.num_rows(card) or found.shape != expected.shape or np.abs(found - expected).max() > 1e-5:
            raise ParityError(
                f"the device puts the rows of a picture of {width} x {height} in another order than transformers: "
                f"{len(found)} rows here, {len(expected)} there. {NOTHING}"
            )
        yield


def _clips(reference: Any, bundle: Bundle) -> Iterator[None]:
    manifest = bundle.manifest
    for count, height, width in CLIPS:
        frames = np.stack([drawn(seed, height, width) for seed in range(count)])
        ours = frames_item([Image.fromarray(frame) for frame in frames], manifest.video, manifest.card)
        given = reference.video_processor([frames], do_sample_frames=False, return_tensors="np")
        name = f"a clip of {count} frames of {width} x {height}"
        values = given.get("pixel_values_videos", given.get("pixel_values"))
        compare_pixels(name, [ours], values, reference.video_processor, tiles_of(manifest.card))
        yield


def _frames(reference: Any, bundle: Bundle) -> Iterator[None]:
    """Compare the places of the frames that both sides take by default, and of five frames."""
    from transformers.video_utils import VideoMetadata

    manifest, processor = bundle.manifest, reference.video_processor
    family = families.find(manifest.card.family)
    samples = manifest.video.fps is not None or manifest.video.num_frames is not None
    for count, fps in product(COUNTS, RATES):
        metadata = VideoMetadata(total_num_frames=count, fps=fps, duration=count / fps)
        if samples and count >= (manifest.video.num_frames or 1):
            ours = family.indices(count, fps, manifest.video, VideoOptions()).tolist()
            given = {"num_frames": processor.num_frames, "fps": processor.fps}
            _same_frames(
                f"a video of {count} frames at {fps:g} a second", ours, processor.sample_frames(metadata, **given)
            )
            yield
        if manifest.video.fps is None and count >= 5:
            ours = family.indices(count, fps, manifest.video, VideoOptions(nframes=5)).tolist()
            _same_frames(f"five frames of {count}", ours, processor.sample_frames(metadata, num_frames=5, fps=None))
            yield


def _same_frames(name: str, device: list[int], reference: Any) -> None:
    if device != [int(index) for index in reference]:
        raise ParityError(
            f"the device looks at other frames of {name} than transformers: {device} here, {reference} there. {NOTHING}"
        )


def compare_pixels(name: str, ours: Sequence[Item], values: Any, processor: Any, tiles: Tiles) -> None:
    """Compare patches of items with normalised pixels (..., 3, side, side).

    Args:
        name: the case, for the message.
        values: the pixels from transformers' processor.
        processor: has the mean and std with which it normalised them.

    Raises:
        ParityError: the number of tiles differs, or a pixel differs by a grey level.
    """
    mean, std = np.array(processor.image_mean), np.array(processor.image_std)
    pixels = np.asarray(values)
    levels = np.rint((pixels.reshape(-1, *pixels.shape[-3:]).transpose(0, 2, 3, 1) * std + mean) * 255)
    original, _ = to_patches(tiles.seen_part(levels.astype(np.uint8)), tiles.patch, tiles.merge, 1)
    patches = np.concatenate([item.patches for item in ours])
    if not np.array_equal(patches, original):
        num_tiles = sum(item.tower_thw[0] for item in ours)
        what = f"{num_tiles} tiles here, {len(levels)} there" if len(original) != len(patches) else "pixels"
        raise ParityError(f"the device prepares {name} otherwise than transformers: {what}. {NOTHING}")
