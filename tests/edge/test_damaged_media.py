"""Damaged media: bytes of real files with some changed give a picture, an item, or a MediaError, and nothing else.

`python -m tests.edge.test_damaged_media 100000` is the long run: one line of JSON at its end.
"""

import io
import json
import random
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.errors import MediaError
from edge_runtime.items.preparation import _opened
from edge_runtime.media.picture import load_picture
from tests.edge.video_files import picture, write_video

KINDS = ["jpeg", "png", "webp", "gif", "tiff", "bmp", "mp4", "mkv", "avi", "animated webp", "animated png"]


@cache
def whole(kind: str) -> bytes:
    """A small real file of a kind."""
    if kind in ("mp4", "mkv", "avi"):
        with tempfile.TemporaryDirectory() as folder:
            codec = "mpeg4" if kind == "avi" else "libx264"
            return write_video(Path(folder) / f"a.{kind}", 9, 4, 96, 96, codec=codec).read_bytes()
    file, frames = io.BytesIO(), [picture(index, 64, 48) for index in range(4)]
    exif = Image.Exif()
    exif[0x0112] = 6
    moving = {"save_all": True, "append_images": frames[1:], "duration": 100} if "animated" in kind else {}
    frames[0].save(file, kind.split()[-1].upper(), exif=exif.tobytes(), **moving)
    return file.getvalue()


def damaged(kind: str, seed: int) -> bytes:
    """Some bytes changed, a part cut out, doubled or cut off; mostly near the front, where the structure is."""
    source = random.Random(f"{kind} {seed}")
    data = bytearray(whole(kind))
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        most = source.choice((64, 512, len(data)))
        at = source.randrange(min(most, len(data)))
        how = source.randrange(6)
        if how == 0:
            data[at] ^= 1 << source.randrange(8)
        elif how == 1:
            data[at] = source.randrange(256)
        elif how == 2:
            data[at : at + 4] = source.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", source.randbytes(4)))
        elif how == 3:
            del data[at : at + source.randrange(1, 32)]
        elif how == 4:
            data[at:at] = data[at : at + source.randrange(1, 32)]
        else:
            del data[max(1, at) :]
        if not data:
            break
    return bytes(data)


def outcome(kind: str, data: bytes) -> str:
    """What becomes of it; anything but a picture, frames and MediaError raises."""
    try:
        if kind in ("mp4", "mkv", "avi", "animated webp", "animated png"):
            with _opened(data) as video:
                assert video.fps > 0
                frames = list(video.frames(np.arange(min(video.num_frames, 4))))
            assert all(frame.mode == "RGB" for frame in frames)
        else:
            assert load_picture(data).mode == "RGB"
    except MediaError:
        return "refused"
    return "read"


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_a_media_error_or_a_picture(kind: str) -> None:
    assert outcome(kind, whole(kind)) == "read"
    found = Counter(outcome(kind, damaged(kind, seed)) for seed in range(60))
    assert found["refused"] >= 5, found


def main(num_cases: int) -> None:
    found: Counter[str] = Counter()
    for seed in range(num_cases):
        kind = KINDS[seed % len(KINDS)]
        try:
            found[outcome(kind, damaged(kind, seed))] += 1
        except Exception as error:
            found["failed"] += 1
            print(json.dumps({"kind": kind, "seed": seed, "error": f"{type(error).__name__}: {error}"[:200]}))
    print(json.dumps({"benchmark": "damaged_media", "cases": num_cases, **found}))
    sys.exit(1 if found["failed"] else 0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
