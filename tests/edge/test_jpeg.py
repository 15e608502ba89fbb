"""What an upload is compared with: the JPEG of the very pixels that the tower sees."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from edge_runtime import Pipeline
from edge_runtime.items.jpeg import jpeg_bytes, pixels
from tests.test_end_to_end import user


def test_pixels_come_back_and_their_jpeg_is_counted(pipeline: Pipeline) -> None:
    card = pipeline.encoder.bundle.manifest.card
    frames = np.random.default_rng(0).integers(0, 256, (4, 128, 160, 3)).astype(np.uint8)
    picture, video = pipeline.items([user(frames[0], tuple(frames), "?")])
    np.testing.assert_array_equal(pixels(picture, card), frames[:1])
    file = io.BytesIO()
    Image.fromarray(frames[0]).save(file, "JPEG", quality=90)
    assert jpeg_bytes(picture, card) == file.tell()
    assert pixels(video, card).shape[0] == 2  # one of each temporal patch
    assert jpeg_bytes(replace(picture, patches=picture.patches[:0]), card) is None
