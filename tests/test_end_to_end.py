"""Picture to streamed answer: edge runtime, real Triton, and transformers on the same pixels as the judge."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from contract.errors import FingerprintMismatch, InvalidInput, Unavailable
from edge_runtime import GrpcClient, HttpClient, Pipeline, Request, Sampling
from edge_runtime.encoded_item import EncodedItem
from serving.triton.launcher import TritonServer
from tests.conftest import CHECKPOINT, ROOT
from tests.processor import pixel_values
from tiny_model.clips import moving_clip, slideshow_clip
from tiny_model.scenes import shapes_scene, text_scene

SAMPLING = Sampling(max_tokens=48)
Messages = list[dict[str, Any]]


def user(*parts: Any) -> dict[str, Any]:
    content = []
    for part in parts:
        kind = "text" if isinstance(part, str) else "video" if isinstance(part, tuple) else "image"
        content.append({"type": kind, kind: part})
    return {"role": "user", "content": content}


def conversations() -> dict[str, Messages]:
    """The cases that must be answered as transformers answers them."""
    random = Random(11)
    scene = shapes_scene(random, 160, 128, 3).image
    other = shapes_scene(random, 96, 160, 2).image
    text = text_scene(random, 128, 96, 3).image
    moving, slides = moving_clip(random, 96, 96, 3, 2).frames, slideshow_clip(random, 128, 96, 3, 2).frames
    return {
        "picture": [user(scene, "Describe the image.")],
        "text picture": [user(text, "Read the text.")],
        "text only": [user("How many shapes are there?")],
        "two sizes": [user(scene, other, "What do you see?")],
        "motion": [user(moving, "Which way does the shape move?")],
        "odd frames": [user(slides[:5], "What appears last?")],
        "mixed": [user(other, slides, text, "What appears first?")],
        "turns": [
            {"role": "system", "content": "You are a helpful assistant."},
            user(scene, "How many shapes are there?"),
            {"role": "assistant", "content": "There are two shapes."},
            user("Describe the image."),
        ],
        "picture in turn two": [
            user(scene, "Describe the image."),
            {"role": "assistant", "content": "."},
            user(text, "Read the text."),
        ],
    }


CASES = conversations()


class Judge:
    """transformers' whole model, tower included, in fp32."""

    def __init__(self) -> None:
        self.model = Qwen3VLForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()

    def tokens(self, pipeline: Pipeline, messages: Messages, max_tokens: int = SAMPLING.max_tokens) -> list[int]:
        """Greedy tokens of `generate` on the pixels the device saw, end of sequence included."""
        request, items = pipeline.request(messages), pipeline.items(messages)
        how = pipeline.encoder.bundle.manifest.image
        ids, config = torch.from_numpy(request.input_ids)[None], self.model.config
        kinds = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds}
        for is_video, pixels, grid in (
            (False, "pixel_values", "image_grid_thw"),
            (True, "pixel_values_videos", "video_grid_thw"),
        ):
            if chosen := [item for item in items if item.is_video == is_video]:
                inputs[pixels] = torch.from_numpy(np.concatenate([pixel_values(item, how) for item in chosen]))
                inputs[grid] = torch.tensor([item.grid_thw for item in chosen])
        self.model.model.rope_deltas = None
        with torch.no_grad():
            out = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        return out[0, ids.shape[1] :].tolist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.fixture(scope="module")
def eos() -> set[int]:
    return set(json.loads((CHECKPOINT / "generation_config.json").read_text())["eos_token_id"])


def served(server: TritonServer, request: Request, sampling: Sampling = SAMPLING) -> tuple[list[int], str]:
    """Tokens and text of a streamed answer, embeddings in full precision."""
    with GrpcClient(server.grpc_url, precision="fp32") as client:
        deltas = list(client.stream(request, sampling))
    assert deltas[-1].finish_reason in ("stop", "length")
    return [token for delta in deltas for token in delta.token_ids], "".join(delta.text for delta in deltas)


def without_end(tokens: list[int], eos: set[int]) -> list[int]:
    return [token for token in tokens if token not in eos]


@pytest.mark.parametrize("name", CASES)
def test_served_tokens_are_those_of_generate(
    server: TritonServer, pipeline: Pipeline, judge: Judge, eos: set[int], name: str
) -> None:
    tokens, text = served(server, pipeline.request(CASES[name]))
    want = judge.tokens(pipeline, CASES[name])
    assert without_end(tokens, eos) == without_end(want, eos)
    tokenizer = pipeline.encoder.bundle.tokenizer
    assert text == tokenizer.decode(want, skip_special_tokens=True)


def test_eight_at_once_each_as_alone(server: TritonServer, pipeline: Pipeline, judge: Judge, eos: set[int]) -> None:
    names = list(CASES)[:8]
    requests = [pipeline.request(CASES[name]) for name in names]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda request: served(server, request)[0], requests))
    for name, tokens in zip(names, answers, strict=True):
        assert without_end(tokens, eos) == without_end(judge.tokens(pipeline, CASES[name]), eos), name


def test_http_answers_the_same_in_half_precision(server: TritonServer, pipeline: Pipeline) -> None:
    request = pipeline.request(CASES["picture"])
    with HttpClient(server.http_url) as client:
        answer = client.infer(request, SAMPLING)
    assert answer.text == served(server, request)[1]
    assert answer.finish_reason == "stop"
    assert answer.num_input_tokens == len(request.input_ids)


def test_it_arrives_piece_by_piece(server: TritonServer, pipeline: Pipeline) -> None:
    with GrpcClient(server.grpc_url) as client:
        deltas = list(client.stream(pipeline.request(CASES["picture"]), SAMPLING))
    assert sum(bool(delta.text) for delta in deltas) > 1  # tokens that wait for a busy machine share a piece
    assert [delta.finish_reason for delta in deltas[:-1]] == [""] * (len(deltas) - 1)


def changed_item(request: Request, fault: Callable[[EncodedItem], dict[str, Any]]) -> Request:
    """A request whose one item is another."""
    (item,) = request.items
    return replace(request, items=(replace(item, **fault(item), wire_keys={}),))


@pytest.mark.parametrize(
    "fault",
    [
        lambda i: {"deepstack": i.deepstack * 0},
        lambda i: {"deepstack": i.deepstack[::-1].copy()},
        lambda i: {"main": i.main[::-1].copy(), "deepstack": i.deepstack[:, ::-1].copy()},
        lambda i: {"grid_thw": (i.grid_thw[0], i.grid_thw[2], i.grid_thw[1])},
    ],
    ids=["deepstack dropped", "levels swapped", "rows reversed", "height and width swapped"],
)
def test_wrong_embeddings_give_other_tokens(server: TritonServer, pipeline: Pipeline, fault: Any) -> None:
    """What a wrong encoder or client would do shows in the answers: the model is a detector."""
    random = Random(23)
    changed = 0
    for _ in range(6):
        request = pipeline.ask(shapes_scene(random, 160, 96, 2).image, "Describe the image.")
        changed += served(server, request)[0] != served(server, changed_item(request, fault))[0]
    assert changed >= 3


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "width": (
        lambda r: changed_item(r, lambda i: {"main": i.main[:, :-1]}),
        InvalidInput,
        "vision_embeddings is 191 wide, 192 is expected",
    ),
    "count": (
        lambda r: changed_item(r, lambda i: {"main": i.main[:-1], "deepstack": i.deepstack[:, :-1]}),
        InvalidInput,
        "rows, the grids ask for",
    ),
    "levels": (
        lambda r: changed_item(r, lambda i: {"deepstack": i.deepstack[:1]}),
        InvalidInput,
        "deepstack_embeddings has shape",
    ),
    "not finite": (lambda r: changed_item(r, lambda i: {"main": i.main + np.nan}), InvalidInput, "only finite values"),
    "fingerprint": (lambda r: replace(r, encoder_fingerprint="0" * 32), InvalidInput, "encoder_fingerprint is '0000"),
    "token id": (lambda r: replace(r, input_ids=r.input_ids + 10**6), InvalidInput, r"input_ids\[0\] is"),
    "pads": (lambda r: replace(r, input_ids=r.input_ids[6:]), InvalidInput, "pad tokens"),
    "grid": (
        lambda r: changed_item(r, lambda i: {"grid_thw": tuple(side + 1 for side in i.grid_thw)}),
        InvalidInput,
        "image_grid_thw",
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("door", ["grpc", "http"])
def test_bad_input_is_named_and_the_next_request_served(
    server: TritonServer, pipeline: Pipeline, name: str, door: str
) -> None:
    fault, kind, says = BAD[name]
    good = pipeline.request(CASES["picture"])
    if door == "grpc":
        with GrpcClient(server.grpc_url) as client:
            with pytest.raises(kind, match=says):
                list(client.stream(fault(good), SAMPLING))
            assert "".join(d.text for d in client.stream(good, SAMPLING))
    else:
        with HttpClient(server.http_url) as http:
            with pytest.raises(kind, match=says):
                http.infer(fault(good), SAMPLING)
            assert http.infer(good, SAMPLING).text


def test_nobody_there_is_said_so(pipeline: Pipeline) -> None:
    request = pipeline.request(CASES["text only"])
    with GrpcClient("127.0.0.1:9", timeout_s=3) as client, pytest.raises(Unavailable, match="is Triton running"):
        list(client.stream(request))
    with HttpClient("127.0.0.1:9", timeout_s=3) as http, pytest.raises(Unavailable, match="is Triton running"):
        http.infer(request)


def test_the_server_says_what_it_serves(server: TritonServer, pipeline: Pipeline) -> None:
    card = pipeline.encoder.bundle.manifest.card
    with GrpcClient(server.grpc_url) as client:
        name, version = client.server()
        parameters = client.parameters()
    assert (name, version[0]) == ("triton", "2")
    assert parameters["encoder_fingerprint"] == card.encoder_fingerprint
    assert int(parameters["hidden_size"]) == card.hidden_size
    assert int(parameters["num_deepstack_levels"]) == card.num_deepstack_levels


def test_command_line(server: TritonServer, bundle_folder: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    scene = shapes_scene(Random(5), 160, 128, 3)
    scene.image.save(picture)
    ask = [sys.executable, "-m", "edge_runtime", "ask", str(picture), "How many shapes are there?"]
    where = ["--bundle", str(bundle_folder), "--triton", server.grpc_url]
    spoken = subprocess.run(ask + where, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert spoken.returncode == 0, spoken.stderr
    told = json.loads(
        subprocess.run([*ask, *where, "--json"], capture_output=True, text=True, cwd=ROOT, timeout=60).stdout
    )
    assert spoken.stdout == told["answer"] + "\n"
    assert told["edge_has_torch"] is False
    (tmp_path / "bad.png").write_bytes(picture.read_bytes()[:300])
    ask[4] = str(tmp_path / "bad.png")
    bad = subprocess.run(ask + where, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: ")
    assert "cut short" in bad.stderr


def test_inspect_shows_tokens_and_checks(bundle_folder: Path, tmp_path: Path, pipeline: Pipeline) -> None:
    picture = tmp_path / "picture.png"
    shapes_scene(Random(5), 160, 128, 3).image.save(picture)
    messages = [user(str(picture), "Describe the image.")]
    (tmp_path / "m.json").write_text(json.dumps(messages))
    command = [
        sys.executable,
        "-m",
        "edge_runtime",
        "inspect",
        "--bundle",
        bundle_folder,
        "--messages",
        tmp_path / "m.json",
        "--json",
    ]
    report = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=60).stdout
    )
    request = pipeline.request(messages)
    assert report["input_ids"] == request.input_ids.tolist()
    assert report["image_grid_thw"] == request.image_grid_thw.tolist()
    assert 0 < report["bundle"]["parity_max_relative_error"] <= 1e-4
    checks = report["embeddings"]
    assert checks["finite"] and checks["nonzero"] and checks["rows_match_pads"]  # noqa: PT018


def test_fingerprint_error_is_its_own_type() -> None:
    assert issubclass(FingerprintMismatch, InvalidInput)
