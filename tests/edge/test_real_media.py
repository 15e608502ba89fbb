"""Real pictures and real footage: the device against qwen-vl-utils and transformers, and files that must be refused."""

import io
import tarfile
import warnings
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.processor import load_processor, pixel_values  # before qwen-vl-utils and transformers  # isort: skip
from qwen_vl_utils import vision_process
from transformers.image_utils import load_image

from contract.errors import MediaError
from edge_runtime import Bundle
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.preparation import picture_item, video_item
from edge_runtime.items.video_options import VideoOptions
from edge_runtime.media.picture import load_picture
from tests.conftest import CHECKPOINT
from tests.edge.real_media import footage, photographs, pillow_files

ONE_STEP = 2 / 255 + 1e-6  # one grey level after (x / 255 - 0.5) / 0.5
BUDGETS = {"shortest_edge": 65_536, "longest_edge": 16_777_216}  # Qwen3-VL's own, 64 to 16,384 tokens
SIZES: list[dict[str, int]] = [
    {"min_pixels": 65_536, "max_pixels": 262_144},
    {"max_pixels": 100_000},
    {"resized_height": 280, "resized_width": 420},
]


@pytest.fixture(scope="module")
def processor() -> Any:
    processor = load_processor(CHECKPOINT)
    processor.image_processor.size = BUDGETS
    return processor


def upright(path: Path) -> Image.Image:
    """qwen-vl-utils leaves EXIF orientation to the caller, transformers applies it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ImageOps.exif_transpose(Image.open(path))


def has_alpha(path: Path) -> bool:
    with Image.open(path) as image:
        return image.has_transparency_data


def test_there_are_dozens_of_every_kind() -> None:
    kinds = Counter(Image.open(path).mode for path in photographs())
    assert sum(kinds.values()) >= 48, kinds
    assert {"RGB", "RGBA", "L", "P", "CMYK", "LAB"} <= kinds.keys(), kinds


def test_pictures_are_what_qwen_vl_utils_and_transformers_make_of_them(processor: Any, bundle: Bundle) -> None:
    """With each option of qwen-vl-utils, and then transformers with do_resize=False, as Qwen3-VL's own example has it."""
    how = replace(bundle.manifest.image, min_pixels=BUDGETS["shortest_edge"], max_pixels=BUDGETS["longest_edge"])
    for number, path in enumerate(photographs()):
        option = SIZES[number % len(SIZES)]
        image = upright(path)
        if image.mode != "RGBA" and has_alpha(path):
            continue  # qwen-vl-utils composites RGBA alone; what is done here is tested in test_media.py
        fetched = vision_process.fetch_image({"image": image, **option}, image_patch_size=16)
        oracle = processor.image_processor(images=[fetched], do_resize=False, return_tensors="np")
        item = picture_item(path, how, bundle.manifest.card, PictureOptions(**option))
        assert item.grid_thw == tuple(oracle["image_grid_thw"][0]), path
        np.testing.assert_allclose(pixel_values(item, how), oracle["pixel_values"], atol=ONE_STEP, err_msg=str(path))


def test_pictures_are_what_transformers_alone_makes_of_them(processor: Any, bundle: Bundle) -> None:
    how = replace(bundle.manifest.image, min_pixels=BUDGETS["shortest_edge"], max_pixels=BUDGETS["longest_edge"])
    opaque = [path for path in photographs() if not has_alpha(path)]
    assert len(opaque) >= 40
    for path in opaque:
        oracle = processor.image_processor(images=[load_image(str(path))], return_tensors="np")
        item = picture_item(path, how, bundle.manifest.card)
        assert item.grid_thw == tuple(oracle["image_grid_thw"][0]), path
        np.testing.assert_allclose(pixel_values(item, how), oracle["pixel_values"], atol=ONE_STEP, err_msg=str(path))


def test_transparent_pictures_are_those_of_pil_images_in_transformers(processor: Any, bundle: Bundle) -> None:
    """transformers lays PIL images on white, as the device does; its loader of paths and URLs drops the alpha channel."""
    how = replace(bundle.manifest.image, min_pixels=BUDGETS["shortest_edge"], max_pixels=BUDGETS["longest_edge"])
    transparent = [path for path in photographs() if has_alpha(path)]
    assert len(transparent) >= 3
    differ = 0
    for path in transparent:
        image = upright(path)
        oracle = processor.image_processor(images=[image], return_tensors="np")
        item = picture_item(path, how, bundle.manifest.card)
        assert item.grid_thw == tuple(oracle["image_grid_thw"][0]), path
        np.testing.assert_allclose(pixel_values(item, how), oracle["pixel_values"], atol=ONE_STEP, err_msg=str(path))
        dropped = processor.image_processor(images=[load_image(str(path))], return_tensors="np")["pixel_values"]
        differ += not np.allclose(pixel_values(item, how), dropped, atol=ONE_STEP)
    assert differ


def test_every_file_of_pillows_tests_is_a_picture_or_refused() -> None:
    """Also the broken ones found by fuzzing: nothing but MediaError leaves, and no format is refused as a whole."""
    read: Counter[str] = Counter()
    refused = 0
    for path in pillow_files():
        try:
            image = load_picture(path)
        except MediaError:
            refused += 1
            continue
        assert image.mode == "RGB"
        read[path.suffix.lower()] += 1
    assert refused >= 100
    assert read[".png"] >= 300
    formats = [
        ".jpg",
        ".gif",
        ".bmp",
        ".tif",
        ".webp",
        ".avif",
        ".jp2",
        ".psd",
        ".ico",
        ".icns",
        ".tga",
        ".dds",
        ".ppm",
        ".pcx",
        ".sgi",
        ".qoi",
        ".xpm",
        ".fits",
        ".mpo",
    ]
    assert not [name for name in formats if not read[name]], read


@pytest.mark.parametrize("name", ["16_bit_binary_pgm.tiff", "hopper_16bit.pgm", "16bit.MM.deflate.tif"])
def test_sixteen_bits_keep_their_shades(name: str) -> None:
    path = next(path for path in pillow_files() if path.name == name)
    with Image.open(path) as image:
        deep = np.asarray(image).astype(np.float64)
    got = np.asarray(load_picture(path))[..., 0]
    scale = 257 if deep.max() > 255 else 1
    np.testing.assert_allclose(got, deep / scale, atol=0.51)


def archives() -> dict[str, tuple[bytes, str]]:
    """Real files of other kinds, some under a picture's name."""
    picture = footage("bikes").parent.parent.parent.parent / "skimage" / "data" / "coins.png"
    zipped, tarred, pdf = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.write(picture, "coins.png")
    with tarfile.open(fileobj=tarred, mode="w:gz") as archive:
        archive.add(picture, "coins.png")
    Image.open(picture).save(pdf, "PDF")
    whole = picture.read_bytes()
    return {
        "zip": (zipped.getvalue(), "ZIP archive"),
        "tar.gz": (tarred.getvalue(), "gzip archive"),
        "pdf": (pdf.getvalue(), "PDF"),
        "svg": (
            b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
            "SVG",
        ),
        "eps": ((footage("bikes").parents[3] / "Tests/images/eps/1.eps").read_bytes(), "PostScript"),
        "video": (footage("bikes").read_bytes(), "video"),
        "html": (b"<!DOCTYPE html><html>not found</html>", "HTML"),
        "cut": (whole[: len(whole) // 2], "cut short"),
        "cut jpeg": ((photographs()[-1]).read_bytes()[:2000], "cut short"),
    }


@pytest.mark.parametrize("name", ["zip", "tar.gz", "pdf", "svg", "eps", "video", "html", "cut", "cut jpeg"])
def test_files_of_other_kinds_are_named(tmp_path: Path, name: str) -> None:
    data, says = archives()[name]
    (tmp_path / "picture.png").write_bytes(data)
    for source in (data, tmp_path / "picture.png"):
        with pytest.raises(MediaError, match=says):
            load_picture(source)


def test_a_picture_under_another_ones_name_is_read(tmp_path: Path) -> None:
    """The bytes decide, not the name."""
    source = next(path for path in photographs() if path.name == "hopper.webp")
    (tmp_path / "picture.png").write_bytes(source.read_bytes())
    np.testing.assert_array_equal(np.asarray(load_picture(tmp_path / "picture.png")), np.asarray(load_picture(source)))


def read_with_pyav(part: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any], float]:
    """A reader for qwen-vl-utils (its own three do not run beside this torch), with its choice of frames."""
    with av.open(part["video"]) as container:
        fps = float(container.streams.video[0].average_rate)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    first, last, total = vision_process.calculate_video_frame_range(part, len(frames), fps)
    count = vision_process.smart_nframes(part, total_frames=total, video_fps=fps)
    places = torch.linspace(first, last, count).round().long().tolist()
    video = torch.from_numpy(np.stack([frames[place] for place in places])).permute(0, 3, 1, 2)  # (T, 3, H, W)
    return video, {"fps": fps, "frames_indices": places, "total_num_frames": total}, count / max(total, 1e-6) * fps


@pytest.mark.parametrize("name", ["bigbuckbunny", "bikes", "carphone_pristine", "carphone_distorted"])
@pytest.mark.parametrize(
    "option",
    [
        {"nframes": 8, "max_pixels": 50_000, "min_pixels": 4096},
        {"fps": 2.0, "video_start": 1.0, "video_end": 3.05, "total_pixels": 200_000, "min_pixels": 4096},
        {"nframes": 6, "resized_height": 128, "resized_width": 192},
    ],
)
def test_footage_is_what_qwen_vl_utils_makes_of_it(
    processor: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, option: dict[str, Any]
) -> None:
    """Frames, size and times exactly; pixels near, because qwen-vl-utils resizes with torchvision's filter."""
    monkeypatch.setitem(vision_process.VIDEO_READER_BACKENDS, "torchvision", read_with_pyav)
    monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "torchvision")
    video, metadata = vision_process.fetch_video(
        {"video": str(footage(name)), **option}, image_patch_size=16, return_video_metadata=True
    )
    oracle = processor.video_processor(
        videos=[video], video_metadata=[metadata], do_resize=False, do_sample_frames=False, return_tensors="np"
    )
    item = video_item(footage(name), bundle.manifest.video, bundle.manifest.card, VideoOptions(**option))
    assert item.grid_thw == tuple(oracle["video_grid_thw"][0])
    times = processor._calculate_timestamps(metadata["frames_indices"], metadata["fps"], 2)
    assert item.timestamps == tuple(times)
    assert np.abs(pixel_values(item, bundle.manifest.video) - oracle["pixel_values_videos"]).mean() < 0.01
