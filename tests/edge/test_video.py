"""Real video files against transformers: frames chosen, sizes, grids, timestamps, token ids, pixels."""

import base64
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.video_utils import VideoMetadata, load_video

from contract.errors import MediaError
from edge_runtime import Bundle, Pipeline
from edge_runtime.items.item import Item
from edge_runtime.items.preparation import video_item
from edge_runtime.items.resize import frame_size
from edge_runtime.items.video_options import VideoOptions, timestamps
from edge_runtime.media.video_file import VideoFile
from tests.conftest import CHECKPOINT, ROOT
from tests.edge.real_media import footage
from tests.edge.video_files import picture, turned, write_video
from tests.processor import load_processor, pixel_values

ONE_STEP = 2 / 255 + 1e-6  # one grey level after (x / 255 - 0.5) / 0.5
TURNS = {turn.name.lower(): turn for turn in Image.Transpose}
STORED = {**TURNS, "real turned": TURNS["rotate_90"], "real mirrored": TURNS["flip_left_right"]}  # how they are shown
UNEVEN = [0, 40, 80, 120, 500, 540, 1500, 1540, 1580, 3000, 3040, 3900, 4000]


@pytest.fixture(scope="module")
def processor() -> Any:
    return load_processor(CHECKPOINT)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("video")
    with av.open(str(footage("bikes"))) as container:
        real = [frame.to_image() for frame, _ in zip(container.decode(video=0), range(61), strict=False)]
    size = {"width": 320, "height": 136, "frames": real}
    mirror = Image.Transpose.FLIP_LEFT_RIGHT
    return {
        "real": footage("carphone_pristine"),
        "real odd": write_video(folder / "real.mp4", 61, 25, **size),
        "real variable rate": write_video(folder / "real_vfr.mp4", len(UNEVEN), 25, pts=UNEVEN, **size),
        "real turned": turned(write_video(folder / "real_turned.mp4", 31, 12, **size), TURNS["rotate_90"]),
        "real mirrored": turned(write_video(folder / "real_mirrored.mp4", 31, 12, **size), mirror),
        "odd": write_video(folder / "odd.mp4", 27, 10),  # 5 frames are looked at
        "variable rate": write_video(folder / "vfr.mp4", len(UNEVEN), 25, pts=UNEVEN),
        **{name: turned(write_video(folder / f"{name}.mp4", 12, 4), turn) for name, turn in TURNS.items()},
        "no frame count": write_video(folder / "web.webm", 16, 8, codec="libvpx-vp9"),
        "old": write_video(folder / "old.avi", 9, 3, 96, 200, codec="mpeg4"),
        "short": write_video(folder / "short.mp4", 3, 30),
        "large": write_video(folder / "large.mp4", 30, 30, 640, 352),
    }


def reference(processor: Any, path: Path, name: str, **sample: Any) -> tuple[list[Image.Image], VideoMetadata]:
    """transformers' PyAV reader and frame choice; it knows no display matrix, so frames are turned here."""
    if name == "no frame count":  # its reader takes the header's count, which this container does not have
        with av.open(str(path)) as container:
            rate = float(container.streams.video[0].average_rate)
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        metadata = VideoMetadata(total_num_frames=len(pictures), fps=rate)
        metadata.frames_indices = processor.video_processor.sample_frames(metadata, **sample)
        frames = np.stack([pictures[i] for i in metadata.frames_indices])
    else:
        choose = lambda metadata, **_: processor.video_processor.sample_frames(metadata, **sample)  # noqa: E731
        frames, metadata = load_video(str(path), backend="pyav", sample_indices_fn=choose)
    images = [Image.fromarray(frame) for frame in frames]
    return [image.transpose(STORED[name]) for image in images] if name in STORED else images, metadata


def message(**video: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "video", **video}, {"type": "text", "text": "What appears last?"}]}]


NAMES = [
    "real",
    "real odd",
    "real variable rate",
    "real turned",
    "real mirrored",
    "odd",
    "variable rate",
    *TURNS,
    "no frame count",
    "old",
    "short",
    "large",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_what_transformers_makes_of_it(
    processor: Any, bundle: Bundle, pipeline: Pipeline, files: dict[str, Path], name: str
) -> None:
    images, metadata = reference(processor, files[name], name)
    text = processor.apply_chat_template(message(video="x"), add_generation_prompt=True, tokenize=False)
    oracle = processor(
        text=[text],
        videos=[np.stack([np.asarray(image) for image in images])],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_tensors="np",
    )
    with VideoFile(files[name]) as video:
        how = bundle.manifest.video
        indices = VideoOptions().indices(video.num_frames, video.fps, how)
        assert indices.tolist() == list(metadata.frames_indices)
        assert video.fps == metadata.fps
        for ours, theirs in zip(video.frames(indices), images, strict=True):
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    request = pipeline.request(message(video=str(files[name])))
    np.testing.assert_array_equal(request.input_ids, oracle["input_ids"][0])
    np.testing.assert_array_equal(request.video_grid_thw, oracle["video_grid_thw"])


def pil_patches(processor: Any, images: list[Image.Image], item: Item) -> np.ndarray:
    """The frames through transformers' PIL image processor at the video's size: the named backend, pair by pair."""
    _, height, width = item.grid_thw
    budget = {"shortest_edge": 16 * height * 16 * width, "longest_edge": 16 * height * 16 * width}
    images = [*images, *[images[-1]] * (len(images) % 2)]
    resized = [image.resize((16 * width, 16 * height), Image.Resampling.BICUBIC) for image in images]
    stills = processor.image_processor(images=resized, size=budget, return_tensors="np")["pixel_values"]
    stills = stills.reshape(len(images) // 2, 2, height * width, 3, 2, 256)  # pair, frame, patch, channel, copy, values
    return stills[..., 0, :].transpose(0, 2, 3, 1, 4).reshape(len(item.patches), -1)


@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_those_of_the_named_backend(
    processor: Any, bundle: Bundle, files: dict[str, Path], name: str
) -> None:
    images, _ = reference(processor, files[name], name)
    item = video_item(files[name], bundle.manifest.video, bundle.manifest.card)
    np.testing.assert_allclose(
        pixel_values(item, bundle.manifest.video), pil_patches(processor, images, item), atol=ONE_STEP
    )


@pytest.mark.parametrize("option", [{"fps": 1.0}, {"fps": 5}, {"nframes": 7}, {"nframes": 27}])
def test_fps_and_nframes_choose_as_transformers(
    processor: Any, bundle: Bundle, files: dict[str, Path], option: dict[str, Any]
) -> None:
    renamed = {"num_frames" if name == "nframes" else name: value for name, value in option.items()}
    _, metadata = reference(processor, files["odd"], "odd", **renamed)
    with VideoFile(files["odd"]) as video:
        ours = VideoOptions(**option).indices(video.num_frames, video.fps, bundle.manifest.video)
    assert ours.tolist() == list(metadata.frames_indices)


@given(st.integers(1, 5000), st.floats(0.5, 240), st.floats(0.05, 60))
@settings(max_examples=300, deadline=None)
def test_choice_and_times_of_any_video(
    processor: Any, bundle: Bundle, num_frames: int, source_fps: float, fps: float
) -> None:
    metadata = VideoMetadata(total_num_frames=num_frames, fps=source_fps)
    oracle = processor.video_processor.sample_frames(metadata, fps=fps)
    ours = VideoOptions(fps=fps).indices(num_frames, source_fps, bundle.manifest.video)
    assert ours.tolist() == oracle.tolist()
    assert timestamps(ours, source_fps, 2) == tuple(processor._calculate_timestamps(oracle, source_fps, 2))


def test_start_and_end_bound_the_part(bundle: Bundle, files: dict[str, Path]) -> None:
    """27 frames at 10 a second, seconds 0.55 to 1.85: frames 6 to 18, in the times of the whole video."""
    how, card = bundle.manifest.video, bundle.manifest.card
    options = VideoOptions(video_start=0.55, video_end=1.85, fps=4)
    assert options.indices(27, 10.0, how).tolist() == [6, 9, 12, 15, 18]
    item = video_item(files["odd"], how, card, options)
    assert item.timestamps == pytest.approx((0.75, 1.35, 1.8))
    with pytest.raises(MediaError, match="holds no frame"):
        VideoOptions(video_start=9).indices(27, 10.0, how)


@pytest.mark.parametrize("name", ["fps", "video_start", "video_end", "sample_fps", "raw_fps"])
@pytest.mark.parametrize("value", [1.7e308, 10**400, 5e-324])
def test_a_number_whose_arithmetic_overflows_is_refused(name: str, value: float) -> None:
    with pytest.raises(MediaError, match=rf"{name} is .*, a number from .* to 1e\+20 is expected"):
        VideoOptions(**{name: value})


def test_min_and_max_frames_bound_the_number(bundle: Bundle) -> None:
    how = bundle.manifest.video
    assert len(VideoOptions(max_frames=6).indices(300, 10.0, how)) == 6
    assert len(VideoOptions(min_frames=20).indices(30, 10.0, how)) == 20
    assert len(VideoOptions().indices(2, 10.0, how)) == 2  # never more than there are
    with pytest.raises(MediaError, match=r"28.*27 frames"):
        VideoOptions(nframes=28).indices(27, 10.0, how)
    with pytest.raises(MediaError, match="up to 768"):
        VideoOptions(max_frames=769).indices(9999, 10.0, how)


@pytest.mark.parametrize(
    ("option", "size"),
    [  # what qwen-vl-utils 0.0.14 resizes 6 frames of 640 x 352 to, image_patch_size=16
        ({"max_pixels": 150_000}, (256, 512)),
        ({"min_pixels": 300_000}, (416, 768)),
        ({"total_pixels": 400_000}, (256, 480)),
        ({"min_pixels": 4096, "total_pixels": 60_000}, (96, 160)),
        ({"min_pixels": 9216, "max_pixels": 20_000}, (96, 160)),
        ({"min_pixels": 4096, "max_pixels": 10**7}, (352, 640)),
    ],
)
def test_pixel_budgets_are_those_of_qwen_vl_utils(
    bundle: Bundle, files: dict[str, Path], option: dict[str, int], size: tuple[int, int]
) -> None:
    item = video_item(files["large"], bundle.manifest.video, bundle.manifest.card, VideoOptions(nframes=6, **option))
    assert item.grid_thw == (3, size[0] // 16, size[1] // 16)


def test_a_budget_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(MediaError, match="min_pixels is 50000"):
        frame_size(4, 100, 100, 32, 50_000, 40_000, None)


def test_a_container_without_an_average_rate_is_read_at_ffmpegs_guess(tmp_path: Path) -> None:
    path = write_video(tmp_path / "unsaid.ivf", 12, 25, codec="libvpx-vp9")
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate is None
    with VideoFile(path) as video:
        assert (video.num_frames, video.fps) == (12, 25.0)


def test_the_video_is_not_always_the_first_video_stream(tmp_path: Path, bundle: Bundle) -> None:
    """An animated AVIF has a still picture first, and a Matroska file may have its cover first."""
    pictures = [picture(index, 64, 64) for index in range(5)]
    pictures[0].save(tmp_path / "moving.avif", save_all=True, append_images=pictures[1:], duration=100)
    with VideoFile(tmp_path / "moving.avif") as video:
        assert (video.num_frames, video.fps) == (5, 10.0)
        assert len(list(video.frames(np.arange(5)))) == 5
    with av.open(str(tmp_path / "covered.mkv"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 96, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for frame in [*cover.encode(av.VideoFrame.from_image(picture(0, 96, 96))), *cover.encode()]:
            container.mux(frame)
        for index in range(12):
            container.mux(stream.encode(av.VideoFrame.from_image(picture(index, 160, 128))))
        container.mux(stream.encode())
    with VideoFile(tmp_path / "covered.mkv") as video:
        assert (video.num_frames, video.fps) == (12, 10.0)
        assert next(video.frames(np.array([3]))).size == (160, 128)


@pytest.mark.parametrize("form", ["webp", "png"])
def test_an_animated_picture_is_a_video(tmp_path: Path, bundle: Bundle, form: str) -> None:
    """Five frames shown 100 to 500 ms: 3 1/3 a second on average; a transparent background is white."""
    path, pictures = tmp_path / f"moving.{form}", [picture(index, 96, 96) for index in range(5)]
    for image in pictures:
        image.putalpha(Image.linear_gradient("L").resize(image.size).point(lambda value: 255 * (value > 40)))
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=[100, 200, 300, 400, 500], lossless=True, disposal=1
    )
    whites = [Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB") for image in pictures]
    how, card = bundle.manifest.video, bundle.manifest.card
    listed = video_item(whites, how, card, VideoOptions(sample_fps=10 / 3))
    for source in (path, path.read_bytes()):
        item = video_item(source, how, card, VideoOptions(nframes=5))
        assert item.timestamps == pytest.approx(listed.timestamps)
        np.testing.assert_array_equal(item.patches, listed.patches)
    assert len(video_item(path, how, card, VideoOptions(fps=1)).timestamps) == 2  # the bundle's least, 4 frames


@pytest.mark.parametrize("form", ["webp", "png"])
def test_a_still_picture_is_no_video(tmp_path: Path, bundle: Bundle, form: str) -> None:
    picture(0, 96, 96).save(tmp_path / f"still.{form}")
    for source, says in (
        (tmp_path / f"still.{form}", "does not move: send it as a picture"),
        ((tmp_path / f"still.{form}").read_bytes()[:40], "cannot be decoded|does not move"),
    ):
        with pytest.raises(MediaError, match=says):
            video_item(source, bundle.manifest.video, bundle.manifest.card)


def test_sources_agree(bundle: Bundle, pipeline: Pipeline, files: dict[str, Path]) -> None:
    path = files["old"]
    url = "data:video/avi;base64," + base64.b64encode(path.read_bytes()).decode()
    first = video_item(path, bundle.manifest.video, bundle.manifest.card)
    for source in (str(path), path.as_uri(), path.read_bytes(), url):
        (item,) = pipeline.items(message(video=source))
        assert (item.timestamps, item.grid_thw) == (first.timestamps, first.grid_thw)
        np.testing.assert_array_equal(item.patches, first.patches)
    openai = [
        {"role": "user", "content": [{"type": "video_url", "video_url": {"url": url}}, *message()[0]["content"][1:]]}
    ]
    np.testing.assert_array_equal(pipeline.request(openai).input_ids, pipeline.request(message(video=path)).input_ids)


def test_frames_folder_and_array_agree(tmp_path: Path, bundle: Bundle, files: dict[str, Path]) -> None:
    how, card = bundle.manifest.video, bundle.manifest.card
    with VideoFile(files["old"]) as video:
        images = list(video.frames(np.arange(video.num_frames)))
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number:03}.png")
    (tmp_path / ".hidden").write_text("no picture")
    options = VideoOptions(sample_fps=3)
    listed = video_item(images, how, card, options)
    array = np.stack([np.asarray(image) for image in images])
    for item in (video_item(tmp_path, how, card, options), video_item(array, how, card, options)):
        np.testing.assert_array_equal(item.patches, listed.patches)
        assert item.timestamps == listed.timestamps == pytest.approx((1 / 6, 5 / 6, 9 / 6, 13 / 6, 8 / 3))
    assert video_item(images, how, card, VideoOptions(sample_fps=3, raw_fps=30)).timestamps[-1] == pytest.approx(8 / 30)


def test_progress_counts_the_frames(bundle: Bundle, files: dict[str, Path]) -> None:
    told: list[tuple[int, int]] = []
    video_item(files["odd"], bundle.manifest.video, bundle.manifest.card, progress=lambda *now: told.append(now))
    assert told == [(n, 5) for n in range(1, 6)]


def test_what_is_no_video_is_said_so(tmp_path: Path, files: dict[str, Path]) -> None:
    whole = files["odd"].read_bytes()
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:2,\n{files['odd']}\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.txt").write_text(f"ffconcat version 1.0\nfile {files['odd']}\n")
    os.mkfifo(tmp_path / "pipe")  # nobody ever writes to it
    cases = {
        b"": "cannot be decoded",
        b"not a video" * 99: "cannot be decoded",
        whole[: len(whole) // 2]: "cannot be decoded",
        tmp_path / "none.mp4": "cannot be read: No such file",
        tmp_path / "pipe": "it is no file",
        Path("/dev/zero"): "it is no file",
        sound: "cannot be decoded",
        tmp_path / "list.m3u8": "cannot be decoded",
        tmp_path / "list.txt": "cannot be decoded",
        "https://host/video.mp4": "is not fetched",
    }
    for source, says in cases.items():
        with pytest.raises(MediaError, match=says):
            VideoFile(source)  # type: ignore[arg-type]


def test_a_video_cut_short_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    """The index stands in front here, so that the file opens and ends early."""
    path = write_video(tmp_path / "front.mp4", 40, 10)
    front = tmp_path / "moved.mp4"
    with av.open(str(path)) as source, av.open(str(front), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    data = front.read_bytes()
    with pytest.raises(MediaError, match=r"cut short|cannot be decoded"):
        video_item(data[: len(data) * 3 // 4], bundle.manifest.video, bundle.manifest.card)
    broken = bytearray(data)
    broken[len(data) // 3 :] = bytes(len(data) - len(data) // 3)
    with pytest.raises(MediaError, match=r"cut short|cannot be decoded"):
        video_item(bytes(broken), bundle.manifest.video, bundle.manifest.card)


@pytest.mark.parametrize(("liar", "says"), [("header", "too large"), ("frames", "cannot be decoded")])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, liar: str, says: str) -> None:
    """A few kilobytes that promise frames of 12,000 x 12,000: in the file's header, or in its JPEG frames alone."""
    path = tmp_path / "bomb.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame.from_image(picture(0, 96, 64))))
        container.mux(stream.encode())
    data = path.read_bytes().replace(struct.pack(">HH", 64, 96), struct.pack(">HH", 12_000, 12_000))
    if liar == "header":
        data = data.replace(struct.pack("<II", 96, 64), struct.pack("<II", 12_000, 12_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MediaError, match=says), VideoFile(data) as video:
        list(video.frames(np.arange(1)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes; a frame has 430 MB


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv"])  # one declares its frames, the other does not
def test_a_video_of_too_many_frames_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = write_video(tmp_path / name, 27, 10)
    monkeypatch.setattr("edge_runtime.media.video_file.MAX_SOURCE_FRAMES", 27)
    with VideoFile(path) as video:
        assert video.num_frames == 27
    monkeypatch.setattr("edge_runtime.media.video_file.MAX_SOURCE_FRAMES", 20)
    counted = 27 if name.endswith("mp4") else 21
    with pytest.raises(MediaError, match=f"too large: .* {counted} frames or more"):
        VideoFile(path)


def test_sound_beside_the_picture_is_left_alone(tmp_path: Path) -> None:
    only_sound = tmp_path / "sound.mka"
    with av.open(str(only_sound), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(MediaError, match="no video stream"):
        VideoFile(only_sound)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"fps": "2"}, "fps is '2'"),
        ({"nframes": 2.5}, "nframes is 2.5, a whole number"),
        ({"nframes": True}, "nframes is True"),
        ({"video_start": -1}, "video_start is -1, a number from 0"),
        ({"fps": 2, "nframes": 4}, "give one of them"),
        ({"sample_fps": 0}, "sample_fps is 0"),
    ],
)
def test_options_out_of_range_are_refused(pipeline: Pipeline, option: dict[str, Any], says: str) -> None:
    with pytest.raises(MediaError, match=says):
        pipeline.items(message(video="x.mp4", **option))


def test_the_missing_extra_is_named(files: dict[str, Path]) -> None:
    script = "import sys; sys.modules['av'] = None\nimport edge_runtime.media.video_file"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert "pip install 'edge-vlm[video]'" in done.stderr
