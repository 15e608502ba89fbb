"""Checkpoints whose config says something else than the usual: rows and answers are those of the whole model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import BundleError
from contract.manifest import read_manifest
from contract.tiles import Tiles
from edge_runtime.items.tiles import anyres
from edge_runtime.items.unpad import num_rows, unpadded
from export.families import llava_next
from export.vision import export_vision
from tests.families.conftest import served_of
from tests.families.models import ALL, fast_tokenizer, picture, write
from tests.families.served import CONVERSATIONS
from tests.families.test_precisions import LARGE

ALL_AT_ONCE = "layers side by side, with the class row, padded"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "the last layer": ("llava", {"layer": -1}),
    "a layer by its number": ("llava", {"layer": 2}),
    "layers side by side": ("llava", {"layer": [-3, 1, -1]}),
    "with the class row": ("llava", {"select": "full"}),
    "padded": ("llava", {"pads": True}),
    ALL_AT_ONCE: ("llava", {"layer": [-2, -3], "select": "full", "pads": True}),
    "layers side by side, of tiles": ("llava_next", {"layer": [-2, -3]}),
    "RMSNorm, norms of queries and keys": ("internvl", LARGE),
}
SHOWN = ("one picture", "two pictures of different sizes", "two turns")


@pytest.mark.parametrize("name", VARIANTS if ALL else [ALL_AT_ONCE])
def test_tokens_are_those_of_the_whole_model(name: str, tmp_path: Path) -> None:
    family, given = VARIANTS[name]
    with served_of(write(family, tmp_path / "model", **given), tmp_path) as served:
        assert max(row["relative_error"] for row in read_manifest(served.bundle).parity) < 1e-4
        for turns in map(CONVERSATIONS.__getitem__, SHOWN):
            request = served.request(turns)
            assert request.input_ids.tolist() == served.inputs(turns)["input_ids"][0].tolist()
            assert served.answers(request) == served.expected(turns)


def test_a_class_row_among_tiles_is_refused(tmp_path: Path) -> None:
    """transformers' own model cannot lay its rows on a map."""
    model = write("llava_next", tmp_path / "model", select="full")
    with pytest.raises(BundleError, match="vision_feature_select_strategy is 'full'"):
        export_vision(str(model), tmp_path / "bundle")


SIDE, PATCH, WIDTH = 56, 14, 8
PINPOINTS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=8, unique=True)
LENGTHS = st.integers(2, 500)


@given(pinpoints=PINPOINTS, height=LENGTHS, width=LENGTHS)
@settings(max_examples=60 if ALL else 15, deadline=None)
def test_any_list_of_pinpoints_and_any_size(pinpoints: list[tuple[int, int]], height: int, width: int) -> None:
    """Pixels of the tiles, number and order of the rows are transformers'."""
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    canvases = [[SIDE * rows, SIDE * columns] for rows, columns in pinpoints]
    tiles = Tiles(
        "anyres", SIDE, SIDE, 1, PATCH, (0.5,) * 3, tuple((high, wide) for high, wide in canvases), has_newline=True
    )
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    images = LlavaNextImageProcessorPil(**sizes, image_grid_pinpoints=canvases, do_rescale=False, do_normalize=False)
    image = picture(width, height, seed=1)
    parts = anyres(image, tiles)
    expected = images([image], return_tensors="np")["pixel_values"][0]
    assert np.array_equal(parts.transpose(0, 3, 1, 2), expected)
    processor = tf.LlavaNextProcessor(images, fast_tokenizer(adds_bos=True), patch_size=PATCH)
    assert num_rows(height, width, tiles) == processor._get_number_of_features(height, width, SIDE, SIDE)
    random = np.random.default_rng(0)
    rows = random.standard_normal((len(parts), tiles.num_rows, WIDTH), np.float32)
    newline = random.standard_normal(WIDTH, np.float32)
    vision = tf.CLIPVisionConfig(image_size=SIDE, patch_size=PATCH)
    config = tf.LlavaNextConfig(vision_config=vision, image_grid_pinpoints=canvases)
    theirs = llava_next.packed(config, rows, height, width, newline)
    assert np.array_equal(unpadded(rows, height, width, tiles, newline), theirs)
