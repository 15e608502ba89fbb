"""The wire of families without grids: numbers of rows in the place of grids, and rows that lie."""

from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from contract.errors import InvalidInput
from contract.names import VISION_MODEL
from edge_runtime import GrpcClient, Pipeline, Request
from serving.triton.launcher import TritonServer
from tests.families.served import CONVERSATIONS, GREEDY, Served, conversations
from tests.serving.wire import httpclient, inputs, stream, unary

SHOWN = CONVERSATIONS["two pictures of different sizes"]


def counted(request: Request) -> dict[str, Any]:
    """A request's tensors as a client sends them that knows nothing of grids."""
    tensors = {name: value for name, value in request.tensors(GREEDY, "fp32").items() if name != "stream"}
    grids = tensors.pop("image_grid_thw")
    if runs := [int(t) for t in grids[:, 0] if t != 1]:
        pytest.skip(f"an item of this family stands in {runs[0]} runs, which needs its grid")
    runs = [rows for frames, _, rows in grids.tolist() for _ in range(frames)]
    return tensors | {"image_rows": np.array(runs)}  # of a picture with several runs a number each


def test_numbers_of_rows_do_for_grids(served: Served, server: TritonServer) -> None:
    """Alone at every door, and with a key: the item has the name that the grid gives it."""
    request = served.request(SHOWN)
    asked, expected = counted(request), served.expected(SHOWN)
    assert list(stream(server.grpc_url, asked)[0]) == expected
    if len(asked["image_rows"]) > len(request.items):
        return  # each tile is an item then, with a key of its own
    answer = unary(server.http_url, asked, httpclient)
    assert answer.as_numpy("token_ids").tolist() == expected
    keys = [key.decode() for key in answer.as_numpy("vision_keys")]
    assert keys == request.keys("fp32")
    first = request.items[0]
    second = {name: asked[name] for name in asked if name not in ("vision_embeddings_fp32", "image_rows")}
    second |= {"vision_embeddings_fp32": request.items[1].main, "image_rows": np.array([len(request.items[1].main)])}
    second["vision_keys"] = np.array([keys[0].encode(), b""], object)
    assert len(first.main) + len(request.items[1].main) == len(request.main)
    assert unary(server.grpc_url, second).as_numpy("token_ids").tolist() == expected


def test_frames_as_pictures_do_for_a_video(served: Served, server: TritonServer) -> None:
    """Where pictures and videos have one pad, a video is told as its frames: a number a run."""
    found = conversations(served.card.family).get("video")
    if found is None or served.card.video_token_id is not None:
        pytest.skip("a video of this family has pads of its own")
    request = served.request(found)
    ((frames, _, rows),) = request.image_grid_thw.tolist()
    asked = request.tensors(GREEDY, "fp32") | {"image_rows": np.array([rows] * frames)}
    del asked["stream"], asked["image_grid_thw"]
    assert list(stream(server.grpc_url, asked)[0]) == served.expected(found)


def test_rows_that_lie_are_refused_alone(served: Served, server: TritonServer) -> None:
    """Typed, with the check's words, at both doors; the next request is served."""
    asked, expected = counted(served.request(SHOWN)), served.expected(SHOWN)
    rows = asked["image_rows"]
    shifted = rows + np.array([1, -1, *[0] * (len(rows) - 2)])
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"image_rows": shifted}, "do not stand side by side"),
        ({"image_rows": rows + 1}, "the grids ask for"),
        ({"image_rows": rows[:1]}, "the grids ask for"),
        ({"image_rows": np.array([rows.sum(), 0])}, r"image_rows\[1\] is 0"),
        ({"image_rows": np.array([-1, 2])}, r"image_rows\[0\] is -1"),
        ({"image_rows": np.array([1 << 40, 2])}, r"image_rows\[0\] is 1099511627776"),
        ({"image_rows": np.ones(65, np.int64)}, "65 pictures and videos, 64 are allowed"),
        ({"image_grid_thw": np.stack([rows, rows, rows], 1)}, "image_rows and image_grid_thw are both given"),
        ({"encoder_fingerprint": "0" * 32}, "fingerprint"),
        ({"vision_embeddings_fp32": asked["vision_embeddings_fp32"][:, 1:].copy()}, "wide"),
    ]
    if served.card.video_token_id is None:
        wrong.append(({"video_rows": rows}, "this model has no pads of videos"))
    for changed, words in wrong:
        with pytest.raises(InferenceServerException, match=words) as refused:
            unary(server.grpc_url, asked | changed)
        assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
        with pytest.raises(InferenceServerException, match=words) as refused:
            stream(server.grpc_url, asked | changed)
        assert "[INVALID_ARG]" in refused.value.message()
    assert list(stream(server.grpc_url, asked)[0]) == expected


def test_the_bundle_of_another_family_is_refused(served: Served, server: TritonServer, pipeline: Pipeline) -> None:
    """A device with the bundle of Qwen3-VL hears that it is one of another checkpoint, and the next request is served."""
    other = pipeline.ask(CONVERSATIONS["one picture"][0][0], "What is it?")
    with GrpcClient(server.grpc_url, precision="fp32") as client:
        with pytest.raises(InvalidInput, match="use the bundle that was exported from the same checkpoint"):
            list(client.stream(other, GREEDY))
        deltas = list(client.stream(served.request(SHOWN), GREEDY))
    assert [token for delta in deltas for token in delta.token_ids] == served.expected(SHOWN)


def test_patches_are_not_taken_for_tiles(served: Served, server: TritonServer) -> None:
    values = {"pixel_values": np.ones((16, 588), np.float32), "image_grid_thw": np.array([[1, 4, 4]])}
    with (
        httpclient.InferenceServerClient(server.http_url) as client,
        pytest.raises(InferenceServerException, match="cuts tiles itself: send image"),
    ):
        client.infer(VISION_MODEL, inputs(httpclient, values))
