"""The maps of colours: their colours are the principal components of the rows, their places those of the picture."""

from pathlib import Path

import numpy as np

from edge_runtime.encoded_item import EncodedItem
from edge_runtime.ui.look import colours, look, maps


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


def test_rows_that_are_no_grid_have_no_map(tmp_path: Path) -> None:
    strip = item(np.zeros((9, 8), np.float32), 1, 9)
    assert maps(strip, 1) == []
    assert look(strip, tmp_path / "none.png", 1) == ""
