"""Rows of a video that do not travel: what the device leaves out, and that answers stand."""

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from contract.errors import InvalidInput
from edge_runtime import Encoder, GrpcClient, Pipeline, Request, Sampling
from edge_runtime.items.item import Item
from edge_runtime.row_rule import RowRule
from serving.triton.launcher import TritonServer
from tests.edge.ways import Way, every_way, text
from tests.test_end_to_end import user
from tiny_model.clips import moving_clip, slideshow_clip

SHORT = Sampling(max_tokens=12)
QUESTION = "Which way does the shape move?"


def still_frames() -> list[Any]:
    """Three pictures, shown for two, three and one temporal patches."""
    first, second, third = slideshow_clip(Random(3), 96, 96, 3).frames[::2]
    return [first] * 4 + [second] * 6 + [third] * 2


def asked(pipeline: Pipeline, rows: str, frames: Any) -> Request:
    return Pipeline(pipeline.encoder, rows=rows).request([user(tuple(frames), QUESTION)])


def test_equal_frames_are_encoded_once(pipeline: Pipeline) -> None:
    """And their rows are those of the whole clip, bit by bit; so are the rows beside them in the same call."""
    (item,) = pipeline.items([user(tuple(still_frames()), QUESTION)])
    (moving,) = pipeline.items([user(moving_clip(Random(1), 96, 128, 2).frames, QUESTION)])
    seen: list[int] = []

    class Counting(Encoder):
        def _call(self, items: Any) -> Any:
            seen.append(sum(len(item.patches) for item in items))
            return super()._call(items)

    encoder = Counting(pipeline.encoder.bundle, pipeline.encoder._graph)
    found = encoder.encode([moving, item, moving])
    assert seen == [2 * len(moving.patches) + len(item.patches) // 2]  # three of six temporal patches
    for one, rows in zip([moving, item, moving], found.by_item(), strict=True):
        t, h, w = one.grid_thw
        each = [replace(one, patches=p, grid_thw=(1, h, w)) for p in np.split(one.patches, t)]
        alone = [Encoder._call(encoder, [frame]) for frame in each]
        np.testing.assert_allclose(rows[0], np.concatenate([main for main, _ in alone]), atol=1e-5)
        np.testing.assert_allclose(rows[1], np.concatenate([levels for _, levels in alone], axis=1), atol=1e-5)
    by_frame = found.by_item()[1][0].reshape(6, -1)
    assert (by_frame[1] == by_frame[0]).all()
    assert (by_frame[2:5] == by_frame[2]).all()
    assert not (by_frame[5] == by_frame[4]).all()


def test_copies_are_held_against_the_last_row_sent() -> None:
    """A slow turn: each frame is near to the one before, and soon far from the first."""
    angles = np.deg2rad(np.arange(0, 60, 5))
    main = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)  # a row a frame
    masks = RowRule(1 - float(np.cos(np.deg2rad(12)))).masks(main, np.zeros((0, 12, 2), np.float32), 12)
    assert masks is not None
    assert np.flatnonzero(~masks.copied).tolist() == [0, 3, 6, 9]  # 15 degrees are above 12, 10 are below
    filled = masks.filled((main[masks.is_sent.ravel()], np.zeros((0, 4, 2))))[0]
    assert ((filled * main).sum(1) > np.cos(np.deg2rad(12))).all()


def test_dropping_keeps_the_first_frame_and_what_changes() -> None:
    random = np.random.default_rng(0)
    frame = random.standard_normal((4, 8))
    frames = np.stack([frame, frame, frame, frame])
    frames[2, 1] = frames[3, 1] = random.standard_normal(8)  # changes from frame 1 to 2 only
    masks = RowRule.of("drop:0.5").masks(frames.reshape(16, 8), np.zeros((0, 16, 8)), 4)
    assert masks is not None
    assert masks.kept[0].all()
    assert masks.kept[2, 1]
    assert masks.kept.any(axis=1).all()
    assert not masks.copied.any()
    assert masks.num_kept < 16


@pytest.mark.parametrize(
    "rows", ["", "some", "copy:", "copy:0", "copy:2", "copy:x", "drop", "drop:1", "drop:nan", "all:1"]
)
def test_unknown_rules_are_refused(pipeline: Pipeline, rows: str) -> None:
    with pytest.raises(InvalidInput, match=r"rows is .*, all, equal, copy"):
        Pipeline(pipeline.encoder, rows=rows)


@every_way
@pytest.mark.parametrize("precision", ["fp32", "int8c", "ecq"])
def test_a_still_video_travels_once(server: TritonServer, pipeline: Pipeline, way: Way, precision: Any) -> None:
    """Half of its rows are equal to the frame before: the same answer for half of the bytes, and then for a key."""
    whole, less = (asked(pipeline, rows, still_frames()) for rows in ("all", "equal"))
    with way.open(way.url(server), precision=precision) as session:
        expected = session.ask(whole, SHORT)
        first, second = session.ask(less, SHORT), session.ask(less, SHORT)
    assert text(first) == text(second) == text(expected)
    assert first[-1].upload_bytes < 0.6 * expected[-1].upload_bytes
    assert second[-1].num_uploaded == 0
    assert first[0].vision_keys != expected[0].vision_keys


def test_copies_change_no_answer_of_moving_clips(server: TritonServer, pipeline: Pipeline) -> None:
    """The default; and what copies of anything would say, so that the test can fail."""
    saved, num_other = 0, 0
    with GrpcClient(server.grpc_url) as client:
        for seed in range(8):
            clip = moving_clip(Random(seed), 128, 96, 4).frames
            whole, copied, wild = (
                list(client.stream(asked(pipeline, r, clip), SHORT)) for r in ("all", "copy", "copy:1")
            )
            assert text(copied) == text(whole), seed
            saved += whole[-1].upload_bytes > copied[-1].upload_bytes
            num_other += text(wild) != text(whole)
    assert saved >= 4
    assert num_other >= 2


@every_way
def test_dropped_rows_are_in_no_prompt(server: TritonServer, pipeline: Pipeline, way: Way) -> None:
    clip = moving_clip(Random(5), 128, 96, 4).frames
    whole, dropped = asked(pipeline, "all", clip), asked(pipeline, "drop:0.5", clip)
    assert len(dropped.input_ids) <= len(whole.input_ids) - 20  # of 48 rows
    with way.open(way.url(server)) as session:
        first, second = session.ask(dropped, SHORT), session.ask(dropped, SHORT)
        sent = session.ask(whole, SHORT)[-1].upload_bytes
    assert text(first) == text(second) != ""
    assert first[-1].num_input_tokens == len(dropped.input_ids)
    assert second[-1].num_uploaded == 0
    assert first[-1].upload_bytes < 0.6 * sent


def test_a_server_that_knows_no_masks_gets_all_rows(pipeline: Pipeline) -> None:
    client = GrpcClient("127.0.0.1:1")
    client.facts = {"embedding_codecs": "fp16"}
    frames = still_frames()
    request, *_ = client.prepared(asked(pipeline, "copy", frames))
    names = request.tensors(SHORT, "fp16").keys()
    assert not {"vision_rows_kept", "vision_rows_copied"} & names
    with pytest.raises(InvalidInput, match="no prompt with dropped rows"):
        client.prepared(asked(pipeline, "drop:0.5", frames))


def test_pictures_travel_whole(pipeline: Pipeline) -> None:
    still = Item(np.zeros((16, 1536), np.uint8), (1, 4, 4))
    main, deepstack = pipeline.encoder.encode([still]).by_item()[0]
    assert RowRule.of("copy:1").masks(main, deepstack, 1) is None
