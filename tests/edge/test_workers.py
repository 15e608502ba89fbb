"""Processes that end decode foreign media: they end at a limit, and when their caller leaves."""

import io
import json
import os
import resource
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from contract.errors import InvalidInput, MediaError, Unavailable
from contract.limits import Limits
from contract.tiles import Tiles
from edge_runtime import Bundle, Pipeline
from edge_runtime.items.decoder import Decoder
from edge_runtime.items.leaving import LeavingAsker
from edge_runtime.items.maker import ItemMaker
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.video_options import VideoOptions
from edge_runtime.items.workers import DecodingLimits, Workers
from edge_runtime.media.access import ANY_FILE
from tests.edge.video_files import picture, write_video
from triton_models.served_encoder import ServedEncoder

NUM_FRAMES = 1 << 20


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def maker(bundle: Bundle) -> ItemMaker:
    manifest = bundle.manifest
    return ItemMaker(manifest.card, manifest.image, manifest.video, 1 << 20)


@pytest.fixture
def workers(maker: ItemMaker) -> Iterator[Workers]:
    workers = Workers(maker, DecodingLimits(max_seconds=2.0, num_workers=2))
    yield workers
    workers.close()


def held(workers: Workers) -> tuple[int, int]:
    """The threads of the process that waits for work, and its kB of address space."""
    (worker,) = workers._idle
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{worker.process.pid}/status").read_text().splitlines())
    return int(lines["Threads"]), int(lines["VmSize"].split()[0])


def test_a_worker_holds_nothing_of_the_videos_it_has_read(workers: Workers, tmp_path: Path) -> None:
    seen = []
    for index in range(40):
        video = write_video(tmp_path / f"{index}.mp4", 8 + index % 3, 4, 64, 64)
        workers(ANY_FILE(video, "video"), VideoOptions(nframes=4))
        seen.append(held(workers))
    assert max(threads for threads, _ in seen) == seen[0][0]
    assert max(kilobytes for _, kilobytes in seen) - seen[0][1] < 64 << 10


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 2^20 frames: one small VP8 frame again and again, under 100 MB."""
    folder = tmp_path_factory.mktemp("endless")
    with av.open(
        str(write_video(folder / "one.ivf", 1, 25, 64, 64, codec="libvpx", frames=[Image.new("RGB", (64, 64))]))
    ) as container:
        packet = next(p for p in container.demux(video=0) if p.size)
        frame = bytes(packet)
    with (folder / "endless.ivf").open("wb") as file:
        file.write((folder / "one.ivf").read_bytes()[:24] + struct.pack("<II", NUM_FRAMES, 0))
        for first in range(0, NUM_FRAMES, 1 << 14):
            file.write(b"".join(struct.pack("<IQ", len(frame), n) + frame for n in range(first, first + (1 << 14))))
    return folder / "endless.ivf"


def test_a_worker_makes_the_same_items(maker: ItemMaker, workers: Workers, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", 12, 4)
    (tmp_path / "frames").mkdir()
    for index in range(5):
        picture(index, 96, 96).save(tmp_path / "frames" / f"{index}.png")
    cases: list[tuple[Any, Any]] = [
        (png(picture(0, 160, 128)), PictureOptions()),
        (png(picture(0, 160, 128)), PictureOptions(resized_height=96, resized_width=128)),
        (video, VideoOptions(nframes=4)),
        (video.read_bytes(), VideoOptions(fps=1.0)),
        (tmp_path / "frames", VideoOptions(sample_fps=3.0)),
        ([png(picture(n, 96, 96)) for n in range(3)], VideoOptions()),
        ([picture(n, 96, 96) for n in range(3)], VideoOptions()),  # pixels need no decoder
    ]
    for source, options in cases:
        kind = "video" if isinstance(options, VideoOptions) else "picture"
        here, there = (make(ANY_FILE(source, kind), options) for make in (maker, workers))
        np.testing.assert_array_equal(here.patches, there.patches)
        assert (here.grid_thw, here.timestamps) == (there.grid_thw, there.timestamps)
    assert len(workers._idle) == 1  # one process made them all


def test_errors_are_those_of_this_process(maker: ItemMaker, workers: Workers) -> None:
    frames = [png(picture(0, 96, 96)), b"no picture", png(picture(1, 96, 96)), png(picture(2, 96, 96))]
    for source, options in ((b"no picture", PictureOptions()), (b"no video", VideoOptions()), (frames, VideoOptions())):
        said = []
        for make in (maker, workers):
            with pytest.raises(MediaError) as raised:
                make(ANY_FILE(source, "video"), options)
            said.append(str(raised.value))
        assert said[0] == said[1]
    assert "frame 2 of 4: picture cannot be read: 10 bytes of an unknown format" in said[0]
    assert workers(png(picture(0, 96, 96)), PictureOptions()).grid_thw == (1, 6, 6)
    assert workers._idle[0].num_jobs == 4  # the process lives on


def test_the_error_of_a_frame_has_the_name_of_its_file(maker: ItemMaker, workers: Workers, tmp_path: Path) -> None:
    for index in range(3):
        picture(index, 96, 96).save(tmp_path / f"{index}.png")
    (tmp_path / "readme.txt").write_text("These are the frames.")
    paths = sorted(tmp_path.iterdir())
    for source in (tmp_path, paths, list(map(str, paths))):
        for make in (maker, workers):
            with pytest.raises(MediaError, match=r"frame 4 of 4 \(readme\.txt\): picture cannot be read"):
                make(ANY_FILE(source, "video"), VideoOptions())


def test_a_video_of_a_million_frames_ends_at_the_limit(workers: Workers, endless: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(MediaError, match="takes too long to decode: 2 s"):
        workers(ANY_FILE(endless, "video"), VideoOptions())
    assert time.monotonic() - begun < 30  # the process starts before its time counts
    assert not workers._idle
    assert workers(png(picture(0, 96, 96)), PictureOptions()).grid_thw == (1, 6, 6)


def test_memory_is_bounded(maker: ItemMaker) -> None:
    """A PNG of 8,000 x 8,000 pixels of one colour: 192 MB decoded."""
    workers = Workers(maker, DecodingLimits(max_bytes=1 << 26, num_workers=1))
    try:
        with pytest.raises(MediaError, match=r"too much memory|cannot be decoded|ended its decoder"):
            workers(png(Image.new("RGB", (8_000, 8_000))), PictureOptions())
        assert workers(png(picture(0, 96, 96)), PictureOptions()).grid_thw == (1, 6, 6)
    finally:
        workers.close()


def test_who_leaves_ends_the_work(maker: ItemMaker, endless: Path) -> None:
    workers = Workers(maker, DecodingLimits(max_seconds=60.0, num_workers=1))
    asker, said = LeavingAsker(b"a"), []

    def ask() -> None:
        try:
            workers(ANY_FILE(endless, "video"), VideoOptions(), asker)
        except MediaError as error:
            said.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(2)]  # one is decoded, one waits
    for thread in threads:
        thread.start()
    time.sleep(3)
    begun = time.monotonic()
    asker.leave()
    for thread in threads:
        thread.join(10)
    assert said == ["the one who asked has left"] * 2
    assert time.monotonic() - begun < 5
    with pytest.raises(MediaError, match="has left"):
        workers(png(picture(0, 96, 96)), PictureOptions(), asker)
    assert not workers._held
    assert workers(png(picture(0, 96, 96)), PictureOptions(), LeavingAsker(b"b")).grid_thw == (1, 6, 6)
    workers.close()


def test_one_caller_leaves_room_for_another(maker: ItemMaker, endless: Path) -> None:
    workers = Workers(maker, DecodingLimits(max_seconds=60.0, num_workers=2))
    slow = [LeavingAsker(b"slow") for _ in range(4)]

    def ask(asker: LeavingAsker) -> None:
        with pytest.raises(MediaError):
            workers(ANY_FILE(endless, "video"), VideoOptions(), asker)

    threads = [threading.Thread(target=ask, args=(asker,)) for asker in slow]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            item = workers(png(picture(0, 96, 96)), PictureOptions(), LeavingAsker(b"quick"))
            assert item.grid_thw == (1, 6, 6)
        assert workers._held == {b"slow": 1}
    finally:
        for asker in slow:
            asker.leave()
        for thread in threads:
            thread.join(10)
        workers.close()


def test_a_killed_process_is_replaced(workers: Workers) -> None:
    assert workers(png(picture(0, 96, 96)), PictureOptions()).grid_thw == (1, 6, 6)
    os.kill(workers._idle[0].process.pid, signal.SIGKILL)
    workers._idle[0].process.wait()
    assert workers(png(picture(0, 96, 96)), PictureOptions()).grid_thw == (1, 6, 6)


def test_a_process_killed_between_two_jobs_costs_nobody_an_answer(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies after Workers looked whether it lives, and before it has the job, for a picture and for frames."""
    pictures = [png(picture(n, 96, 96)) for n in range(3)]
    run = Decoder.run

    def killed(self: Decoder, *job: Any) -> Any:
        if self.num_jobs == 1:
            self.process.kill()
            self.process.wait()
        return run(self, *job)

    workers(pictures[0], PictureOptions())
    monkeypatch.setattr(Decoder, "run", killed)
    for source, options in ((pictures[1], PictureOptions()), (pictures, VideoOptions())):
        first = workers._idle[0].process.pid
        assert workers(ANY_FILE(source, "video"), options).grid_thw[1:] == (6, 6)
        assert workers._idle[0].process.pid != first


def test_a_system_that_kills_every_process_is_no_fault_of_the_picture(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Decoder.run
    monkeypatch.setattr(
        Decoder, "run", lambda self, *job: (os.kill(self.process.pid, signal.SIGKILL), run(self, *job))[1]
    )
    with pytest.raises(Unavailable, match=r"the system ended the decoder with status -9: try again"):
        workers(png(picture(0, 96, 96)), PictureOptions())
    assert not workers._held
    assert not workers._idle


@pytest.mark.parametrize("limit", ["RLIMIT_NOFILE", "no program"])
def test_a_machine_that_starts_no_process_is_no_fault_of_the_picture(
    maker: ItemMaker, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    workers = Workers(maker, DecodingLimits(num_workers=1))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == "no program":
        monkeypatch.setattr("edge_runtime.items.decoder.sys.executable", "/nowhere/python")
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(Unavailable, match=r"a decoder cannot start: .*try again later"):
            workers(png(picture(0, 96, 96)), PictureOptions())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    monkeypatch.undo()
    assert workers(png(picture(0, 96, 96)), PictureOptions()).grid_thw == (1, 6, 6)
    workers.close()


def test_who_leaves_late_ends_nobody_elses_work(workers: Workers) -> None:
    """The call to end a job may come when the process works for somebody else already."""
    late: list[Callable[[], None]] = []

    class Late(LeavingAsker):
        @contextmanager
        def told(self, leave: Callable[[], None]) -> Iterator[None]:
            late.append(leave)
            yield

    workers(png(picture(0, 96, 96)), PictureOptions(), Late())
    worker = workers._idle[0]
    for leave in late:
        leave()
    assert workers(png(picture(1, 96, 96)), PictureOptions()).grid_thw == (1, 6, 6)
    assert workers._idle == [worker]


def says(header: bytes) -> bytes:
    return struct.pack("<I", len(header)) + header


@pytest.mark.parametrize(
    "answer",
    [b"\xff" * 4, says(b"[]"), says(b"{}"), says(b"no JSON"), says(b"[" * 20_000), says(b'{"num_bytes": -1}'),
     says(b'{"num_bytes": 1e9}'), says(b'{"num_bytes": 99999999999999}'), says(b'{"num_bytes": 0}'),
     says(b'{"num_bytes": 0, "error": "MediaError"}'), says(b'{"num_bytes": 0, "shape": [-7], "values": 1}')],
)  # fmt: skip
def test_a_decoder_that_somebody_took_over_gives_a_typed_error(
    workers: Workers, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = (says(b'{"num_bytes": 0}') + answer).hex()
    lie = f"import os, time; os.write(0, bytes.fromhex('{said}')); time.sleep(60)"
    monkeypatch.setattr("edge_runtime.items.decoder.START", lie)
    monkeypatch.setattr("edge_runtime.items.decoder.END_S", 0.1)
    with pytest.raises(MediaError):
        workers(png(picture(0, 96, 96)), PictureOptions())
    assert not workers._held


def test_a_pipeline_decodes_in_workers(bundle: Bundle, pipeline: Pipeline) -> None:
    apart = Pipeline(pipeline.encoder, decoding=DecodingLimits())
    try:
        ours, here = apart.ask(png(picture(0, 160, 128)), "What?"), pipeline.ask(png(picture(0, 160, 128)), "What?")
        np.testing.assert_array_equal(ours.main, here.main)
    finally:
        apart.close()


@pytest.mark.parametrize(
    "limits", [{"max_seconds": 0}, {"max_seconds": float("nan")}, {"max_bytes": 1}, {"num_workers": 0}]
)
def test_limits_make_sense(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="at least"):
        DecodingLimits(**limits)


def test_a_maker_travels_whole(maker: ItemMaker) -> None:
    """Also one of a family of tiles, whose card holds an object of its own."""
    tiles = Tiles("anyres", 28, 28, 1, 14, (0.5, 0.25, 0.125), pinpoints=((28, 56), (56, 28)), has_newline=True)
    for made in (maker, replace(maker, card=replace(maker.card, family="llava_next", tiles=tiles))):
        assert ItemMaker.from_facts(json.loads(json.dumps(made.facts()))) == made


def test_the_vision_model_decodes_within_limits(bundle_folder: Path) -> None:
    costly = png(Image.new("RGB", (8_000, 8_000)))  # 192 MB decoded
    served = ServedEncoder(str(bundle_folder), Limits(), 1, DecodingLimits(max_bytes=1 << 26, num_workers=2))
    try:
        with pytest.raises(MediaError, match=r"too much memory|cannot be decoded|ended its decoder"):
            served.encode({"image": np.array([costly], np.object_)})
        assert served.encode({"image": np.array([png(picture(0, 96, 96))], np.object_)})["image_grid_thw"].tolist() == [
            [1, 6, 6]
        ]
    finally:
        served.close()
    assert isinstance(ServedEncoder(str(bundle_folder), Limits(), 1).pipeline._make, Workers)  # without being told
