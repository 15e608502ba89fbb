"""Encoding in parts and from the cache: the rows are those of one fresh call, to the bit where nothing is recomputed."""

import os
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.errors import InvalidInput
from edge_runtime import Bundle, EmbeddingCache, Embeddings, Encoder, Pipeline
from edge_runtime.items.item import Item
from edge_runtime.items.preparation import frames_item, picture_item
from edge_runtime.reuse.embedding_cache import content_key
from edge_runtime.reuse.embedding_files import EmbeddingFiles
from edge_runtime.reuse.reusing_encoder import Encoded, PreparedItem, ReusingEncoder
from edge_runtime.tower.batches import batches
from tests.edge.video_files import picture


@pytest.fixture(scope="module")
def items(bundle: Bundle) -> list[Item]:
    """Two pictures with a video of four temporal patches between."""
    manifest = bundle.manifest
    return [
        picture_item(picture(0, 160, 96), manifest.image, manifest.card),
        frames_item([picture(i, 96, 96) for i in range(7)], manifest.video, manifest.card),
        picture_item(picture(3, 96, 128), manifest.image, manifest.card),
    ]


def reusing(bundle: Bundle, cache: EmbeddingCache | None = None) -> ReusingEncoder:
    return ReusingEncoder(Encoder.from_bundle(bundle, threads=1), EmbeddingCache() if cache is None else cache)


def encode(encoder: ReusingEncoder, items: list[Item]) -> Encoded:
    return encoder.encode([PreparedItem(item) for item in items])


def scale_of(encoded: Encoded) -> float:
    return max(float(np.abs(row.deepstack).max()) for row in encoded.rows)


def equal(ours: Encoded, other: Encoded | Embeddings, tolerance: float = 0.0) -> None:
    pairs = other.by_item() if isinstance(other, Embeddings) else [(row.main, row.deepstack) for row in other.rows]
    for row, (main, deepstack) in zip(ours.rows, pairs, strict=True):
        np.testing.assert_allclose(row.main, main, atol=tolerance, rtol=0)
        np.testing.assert_allclose(row.deepstack, deepstack, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("max_patches", "calls"), [(1, 6), (36, 6), (72, 4), (100, 4), (144, 3), (160, 3), (10_000, 1)]
)
def test_a_budget_changes_calls_but_not_rows(
    bundle: Bundle, pipeline: Pipeline, items: list[Item], max_patches: int, calls: int
) -> None:
    """Patches: 60, then 4 x 36, then 48."""
    parts = list(batches(items, max_patches))
    assert len(parts) == calls
    assert all(len(pixels) <= max_patches or len(grids) == 1 == grids[0, 0] for pixels, grids in parts)
    np.testing.assert_array_equal(
        np.concatenate([pixels for pixels, _ in parts]), np.concatenate([item.patches for item in items])
    )
    whole = pipeline.encoder.encode(items)
    scale = float(np.abs(whole.deepstack_embeds).max())
    ours = Encoder.from_bundle(bundle, threads=1, max_patches=max_patches)
    equal(encode(ReusingEncoder(ours), items), whole, 1e-5 * scale)
    assert ours.encode(items).grid_thw.tolist() == [list(item.grid_thw) for item in items]


def test_a_budget_below_one_patch_is_refused(bundle: Bundle) -> None:
    with pytest.raises(InvalidInput, match="max_patches is 0"):
        Encoder.from_bundle(bundle, max_patches=0)


def test_the_second_time_nothing_is_encoded(bundle: Bundle, items: list[Item]) -> None:
    encoder = reusing(bundle)
    first = encode(encoder, items)
    assert first.num_encoded == 3
    again = encode(encoder, items[::-1])
    assert again.num_encoded == 0
    equal(replace(again, rows=again.rows[::-1]), first)
    assert [row.grid_thw for row in again.rows] == [item.grid_thw for item in items[::-1]]
    assert encode(encoder, []).num_encoded == 0


def test_a_picture_shown_twice_is_encoded_once(bundle: Bundle, pipeline: Pipeline, items: list[Item]) -> None:
    ours = encode(reusing(bundle), [items[0], items[2], items[0]])
    assert ours.num_encoded == 2
    whole = pipeline.encoder.encode([items[0], items[2], items[0]])
    equal(ours, whole, 1e-5 * float(np.abs(whole.deepstack_embeds).max()))


def test_without_a_cache_everything_is_encoded(bundle: Bundle, items: list[Item]) -> None:
    encoder = ReusingEncoder(Encoder.from_bundle(bundle, threads=1))
    assert [encode(encoder, [items[0]] * 2).num_encoded for _ in range(2)] == [2, 2]
    assert encoder.name(b"a picture", None) is None


def test_a_caller_cannot_change_what_is_held(bundle: Bundle, items: list[Item]) -> None:
    encoder = reusing(bundle)
    for _ in range(2):
        (row,) = encode(encoder, items[:1]).rows
        for array in (row.main, row.deepstack):
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0


def test_rows_that_were_found_stay_though_the_cache_lets_them_go(bundle: Bundle, items: list[Item]) -> None:
    cache = EmbeddingCache()
    encoder = reusing(bundle, cache)
    first = encoder.encode([PreparedItem(items[0], "a name")])
    known = encoder.known("a name")
    assert known is not None
    assert known.item.patches.size == 0
    cache.max_bytes = 0
    cache.put("large", (np.zeros((1000, 8), np.float32), np.zeros((1, 1000, 8), np.float32)))
    assert encoder.known("a name") is None
    again = encoder.encode([known])
    assert again.num_encoded == 0
    equal(again, first)


def test_the_key_is_pixels_grid_encoder_and_precision(bundle: Bundle, items: list[Item]) -> None:
    item, manifest = items[0], bundle.manifest
    changed = item.patches.copy()
    changed[-1, -1] ^= 1
    frames, height, width = item.grid_thw
    keys = [
        content_key(item, bundle),
        content_key(replace(item, patches=changed), bundle),
        content_key(replace(item, grid_thw=(frames, width, height)), bundle),
        content_key(item, replace(bundle, manifest=replace(manifest, precision="int8"))),
        content_key(item, replace(bundle, manifest=replace(manifest, card=replace(manifest.card, encoder_fingerprint="0")))),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert content_key(replace(item, patches=item.patches.copy()), bundle) == keys[0]


def test_memory_is_bounded_and_the_longest_unused_goes() -> None:
    rows = (np.zeros((10, 8), np.float32), np.zeros((2, 10, 8), np.float32))  # 960 bytes
    cache = EmbeddingCache(3000)
    for key in "abc":
        cache.put(key, rows)
    assert cache.get("a") is not None
    cache.put("d", rows)
    assert cache.num_bytes == 2880
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]
    cache.put("large", (np.zeros((1000, 8), np.float32), rows[1]))
    assert cache.get("large") is None
    assert cache.num_bytes <= 3000


def test_rows_outlive_the_process_on_disk(bundle: Bundle, items: list[Item], tmp_path: Path) -> None:
    first = encode(reusing(bundle, EmbeddingCache(folder=tmp_path / "kept")), items)
    later = encode(reusing(bundle, EmbeddingCache(folder=tmp_path / "kept")), items)
    assert (first.num_encoded, later.num_encoded) == (3, 0)
    equal(later, first)
    assert not [path for path in (tmp_path / "kept").iterdir() if path.suffix != ".embeddings"]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:100] + b"x" + data[101:], lambda data: b""]
)
def test_a_damaged_file_is_encoded_again(bundle: Bundle, items: list[Item], tmp_path: Path, damage: object) -> None:
    first = encode(reusing(bundle, EmbeddingCache(folder=tmp_path)), items)
    path = tmp_path / (content_key(items[1], bundle) + ".embeddings")
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    again = encode(reusing(bundle, EmbeddingCache(folder=tmp_path)), items)
    assert again.num_encoded == 1
    equal(again, first, 1e-5 * scale_of(first))
    assert EmbeddingFiles(tmp_path, 1 << 20).get(content_key(items[1], bundle)) is not None


def test_the_folder_is_bounded_and_the_longest_unused_goes(tmp_path: Path) -> None:
    rows = (np.zeros((10, 8), np.float32), np.zeros((2, 10, 8), np.float32))
    files = EmbeddingFiles(tmp_path, 4000)  # a file takes 1248 bytes
    for age, key in enumerate("abc"):
        files.put(key, rows)
        os.utime(tmp_path / f"{key}.embeddings", (age, age))
    assert files.get("a") is not None
    files.put("d", rows)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "c", "d"]
    files.put("large", (np.zeros((1000, 8), np.float32), rows[1]))
    assert files.get("large") is None
    assert files.get("a") is not None


def test_a_folder_that_vanishes_is_a_warning(tmp_path: Path) -> None:
    cache = EmbeddingCache(folder=tmp_path / "kept")
    (tmp_path / "kept").rmdir()
    rows = (np.ones((1, 8), np.float32), np.ones((2, 1, 8), np.float32))
    with pytest.warns(UserWarning, match="are not kept"):
        cache.put("a", rows)
    assert cache.get("a") is not None
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be made"):
        EmbeddingCache(folder=tmp_path / "file" / "kept")


def test_threads_share_a_cache(bundle: Bundle, items: list[Item], tmp_path: Path) -> None:
    encoder = reusing(bundle, EmbeddingCache(1 << 18, folder=tmp_path, max_disk_bytes=1 << 18))
    want, got = encode(encoder, items), []
    threads = [threading.Thread(target=lambda: got.append(encode(encoder, items))) for _ in range(6)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(got) == 6
    for embeddings in got:
        equal(embeddings, want, 1e-5 * scale_of(want))


def test_a_device_bounds_pictures_and_frames(bundle: Bundle, pipeline: Pipeline) -> None:
    """The bundle allows pictures up to 25,600 pixels; the device here 12,288."""
    content = [{"type": "image", "image": picture(0, 300, 220)}]
    clip = [picture(i, 160, 128) for i in range(4)]
    content += [{"type": "video", "video": clip}, {"type": "video", "video": clip, "min_pixels": 4096}]
    messages = [{"role": "user", "content": content}]
    free, bound = Pipeline(pipeline.encoder, max_pixels=None), Pipeline(pipeline.encoder, max_pixels=12_288)
    assert [item.grid_thw for item in free.items(messages)] == [(1, 8, 10), (2, 8, 10), (2, 8, 10)]
    assert [item.grid_thw for item in bound.items(messages)] == [(1, 4, 8), (2, 6, 6), (2, 6, 6)]
    assert [item.grid_thw for item in pipeline.items(messages)] == [(1, 8, 10), (2, 8, 10), (2, 8, 10)]
    with pytest.raises(InvalidInput, match="at least the bundle's 9216"):
        Pipeline(pipeline.encoder, max_pixels=9215)
    request = bound.request(messages)
    assert request.num_encoded == 3
    assert len(request.main) == 8 + 18 + 18
