"""The maps of colours: their colours are the principal components of the rows, their places those of the picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.clients.grpc_client import GrpcClient
from edge_runtime.encoded_item import EncodedItem
from edge_runtime.items.workers import DecodingLimits
from edge_runtime.pipeline import Pipeline
from edge_runtime.tower.encoder import Encoder
from edge_runtime.ui.conversation import Media, Turn
from edge_runtime.ui.look import colours, look, maps
from edge_runtime.ui.page import Page


def item(main: np.ndarray, height: int, width: int, is_video: bool = False) -> EncodedItem:
    return EncodedItem(is_video, (1, height, width), main, np.stack([main, main[::-1]]))


def test_colours_are_the_principal_components() -> None:
    random = np.random.default_rng(3)
    axes = np.linalg.qr(random.standard_normal((64, 3)))[0]
    places = random.standard_normal((200, 3)) * (30, 10, 3)
    rows = (places @ axes.T + 5 + 0.01 * random.standard_normal((200, 64))).astype(np.float32)
    found = colours(rows).astype(float)
    for channel in range(3):
        assert abs(np.corrcoef(found[:, channel], places[:, channel])[0, 1]) > 0.97
    assert found.min() == 0
    assert found.max() == 255


def test_a_map_has_the_places_of_the_picture() -> None:
    main = np.zeros((6, 8), np.float32)
    main[4] = 100  # second row, second column of 2 x 3
    drawn = maps(item(main, 4, 6), 2)
    assert len(drawn) == 3
    pixels = np.asarray(drawn[0])
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 3
    odd = pixels[height + 2, width + 2]
    assert (odd != pixels[2, 2]).any()
    assert (pixels[2, 2] == pixels[height + 2, 2 * width + 2]).all()
    assert drawn[0].size == (240, 160)


def test_rows_that_are_no_grid_have_no_map() -> None:
    strip = item(np.zeros((9, 8), np.float32), 1, 9)
    assert maps(strip, 1) == []
    assert look(strip, lambda: Image.new("RGB", (9, 1)), 1) == ""


def test_this_process_decodes_no_visitors_picture(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder of the pipeline does, within its limits; the page used to open the file once more by itself."""
    path = tmp_path / "picture.png"
    Image.new("RGB", (160, 128), (200, 30, 30)).save(path)
    pipeline = Pipeline(Encoder.from_bundle(bundle_folder), decoding=DecodingLimits(num_workers=1))
    try:
        request = pipeline.ask(path, "What is it?")
        turn = Turn(num_encoded=1, num_visual_tokens=20, encode_ms=1.0, items=tuple(request.items))
        page = Page(pipeline, GrpcClient("127.0.0.1:1"), "")
        monkeypatch.setattr(Image, "open", None)
        drawn = page._look(turn, [Media("image", path)])
    finally:
        pipeline.close()
    assert drawn.count("<figure>") == 1 + len(maps(request.items[-1], 2))
    assert "the picture, which stays here" in drawn
