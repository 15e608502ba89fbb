"""Pictures through the tower: once each, beside the answers of others, and no more in a row than was said."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from serving.triton.launcher import TritonServer
from tests.gateway.drawings import drawn, picture_part, user
from tests.gateway.gateway_process import Gateway, gateway_process
from tests.gateway.test_leaving import sent
from tests.waiting import wait_for
from tiny_model.scenes import shapes_scene

# the bundled tower takes milliseconds: this one takes its time like a large one
SLOW_TOWER = (
    "import time; from edge_runtime.tower.encoder import Encoder; run = Encoder.encode; "
    "Encoder.encode = lambda self, items: (time.sleep(0.7 * bool(items)), run(self, items))[1]"
)


@pytest.fixture(scope="module")
def slow(bundle_folder: Path, server: TritonServer) -> Iterator[Gateway]:
    flags = ["--max-waiting", "4"]
    with gateway_process(bundle_folder, server.grpc_url, *flags, patience=SLOW_TOWER) as gateway:
        yield gateway


def picture(seed: int) -> Image.Image:
    return shapes_scene(Random(seed), 160, 128, 2).image


def encoded(gateway: Gateway) -> float:
    return gateway.counted("items_total", 'step="encoded"')


def body(image: Image.Image, question: str = "How many shapes are there?", **options: object) -> dict[str, object]:
    return {"messages": [user(picture_part(image), question)], "max_tokens": 8} | options


def test_the_same_picture_at_the_same_time_is_encoded_once(slow: Gateway) -> None:
    before, same = encoded(slow), body(picture(1))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: slow.ask(body=same), range(4)))
    assert [status for status, _, _ in answers] == [200] * 4, answers
    assert len({answer["choices"][0]["message"]["content"] for _, answer, _ in answers}) == 1
    assert encoded(slow) - before == 1
    assert slow.counted("tower_runs_total", 'runner="cpu"') == encoded(slow)


def test_another_question_encodes_and_sends_nothing(slow: Gateway) -> None:
    scene, questions = drawn(5)
    asked = [slow.ask(body=body(scene.image, question.text, max_tokens=64)) for question in questions[:1]]
    before = encoded(slow), slow.counted("items_total", 'step="sent"'), slow.counted("upload_bytes_total")
    asked += [slow.ask(body=body(scene.image, question.text, max_tokens=64)) for question in questions[1:4]]
    assert [a["choices"][0]["message"]["content"] for _, a, _ in asked] == [q.answer for q in questions[:4]]
    wait_for(lambda: "picture_bytes_total{" in slow.ask("/metrics")[1])
    for codec in ("fp16", "jpeg"):
        assert slow.counted("picture_bytes_total", f'codec="{codec}"') > 1000
    after = encoded(slow), slow.counted("items_total", 'step="sent"'), slow.counted("upload_bytes_total")
    assert after[:2] == before[:2]
    assert after[2] - before[2] < 3 * 20_000  # ids and parameters; the picture alone is more than that


def test_the_first_token_does_not_wait_for_the_count_of_jpeg_bytes(
    bundle_folder: Path, server: TritonServer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    held = (
        "import os; from edge_runtime.gateway import chat; count = chat.jpeg_bytes; "
        "chat.jpeg_bytes = lambda *given: (open(os.environ['GO']).close(), count(*given))[1]"
    )
    os.mkfifo(go)  # who opens it waits for the other side
    with gateway_process(bundle_folder, server.grpc_url, patience=held, GO=str(go)) as gateway:
        stream = gateway.client().chat.completions.create(
            model="edge_vlm", messages=[user(picture_part(picture(9)), "Describe the image.")], stream=True
        )  # type: ignore[call-overload]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream)  # whole, and nothing is counted
        assert "picture_bytes_total{" not in gateway.ask("/metrics")[1]
        go.write_text("")
        wait_for(lambda: "picture_bytes_total{" in gateway.ask("/metrics")[1])
        assert gateway.counted("picture_bytes_total", 'codec="jpeg"') > 1000


def test_a_picture_is_encoded_while_another_answer_streams(slow: Gateway) -> None:
    long, short = picture(3), picture(4)
    stream = slow.client().chat.completions.create(
        model="edge_vlm", messages=[user(picture_part(long), "Describe the image.")], stream=True, max_tokens=3000,
        extra_body={"ignore_eos": True},
    )  # type: ignore[call-overload]  # fmt: skip
    next(stream)
    before = encoded(slow)
    assert slow.ask(body=body(short))[0] == 200
    assert encoded(slow) == before + 1
    wait_for(lambda: slow.counted("requests_running") == 1)  # the first is still under way
    next(stream)
    stream.close()
    wait_for(lambda: slow.counted("requests_running") == 0)


def test_no_more_wait_for_the_tower_than_was_said(slow: Gateway) -> None:
    """Two are in it, two more may wait; text alone does not queue."""
    pictures = [picture(10 + seed) for seed in range(8)]
    bodies = [body(picture) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(slow.ask, body=one) for one in bodies]
        wait_for(lambda: slow.counted("requests_waiting") == 4)
        text = {"messages": [{"role": "user", "content": "How many shapes are there?"}], "max_tokens": 2}
        assert slow.ask(body=text)[0] == 200
        got = [answer.result() for answer in answers]
    refused = [answer["error"] for status, answer, _ in got if status == 503]
    assert refused
    assert all("--max-waiting" in error["message"] and error["type"] == "server_error" for error in refused)
    assert all(headers["Retry-After"] for status, _, headers in got if status == 503)
    assert len(refused) + sum(status == 200 for status, _, _ in got) == 8
    assert slow.counted("requests_waiting") == 0


def test_a_caller_who_left_the_queue_is_not_encoded(slow: Gateway) -> None:
    bodies = [body(picture(30 + seed), max_tokens=1) for seed in range(4)]
    senders = [sent(slow, one) for one in bodies]
    wait_for(lambda: slow.counted("requests_waiting") == 4)
    for sender in senders:
        sender.close()
    wait_for(lambda: slow.counted("requests_waiting") == 0)
    before = encoded(slow)
    for one in bodies:
        assert slow.ask(body=one)[0] == 200
    assert encoded(slow) - before >= 2  # two may have been in the tower already, the others were not kept


def test_thirty_two_callers_at_once(bundle_folder: Path, server: TritonServer) -> None:
    """Each his own picture and answer, in memory that does not grow with the rounds."""
    with gateway_process(bundle_folder, server.grpc_url) as gateway:

        def one(seed: int) -> bool:
            scene, (question, *_) = drawn(seed)
            status, answer, _ = gateway.ask(body=body(scene.image, question.text, max_tokens=64))
            assert status == 200, answer
            return bool(answer["choices"][0]["message"]["content"] == question.answer)

        peaks, right = [], 0
        for wave in range(3):
            with ThreadPoolExecutor(32) as pool:
                right += sum(pool.map(one, range(100 + 32 * wave, 132 + 32 * wave)))
            peaks.append(gateway.peak_bytes())
        assert right >= 0.9 * 96
        assert peaks[2] - peaks[0] < 40 << 20  # 64 more pictures, whose embeddings stay in memory
