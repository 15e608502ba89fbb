"""Pictures through the tower: once each, beside the answers of others, and no more in a row than was said."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from serving.launcher import TritonServer
from tests.gateway.drawings import drawn, picture_part, user
from tests.gateway.gateway_process import Gateway, gateway_process
from tests.gateway.test_leaving import sent, until
from tiny_model.scenes import shapes_scene


def noise(seed: int, side: int) -> Image.Image:
    """A picture that takes a while: the tower sees side x side pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8))


@pytest.fixture(scope="module")
def fresh(bundle_folder: Path, server: TritonServer) -> Iterator[Gateway]:
    with gateway_process(bundle_folder, server.grpc_url, "--max-waiting", "4") as gateway:
        yield gateway


def encoded(gateway: Gateway) -> float:
    return gateway.counted("items_total", 'step="encoded"')


def body(image: Image.Image, question: str = "How many shapes are there?", **options: object) -> dict[str, object]:
    return {"messages": [user(picture_part(image), question)], "max_tokens": 8} | options


def test_the_same_picture_at_the_same_time_is_encoded_once(fresh: Gateway) -> None:
    before, same = encoded(fresh), body(noise(1, 320))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: fresh.ask(body=same), range(4)))
    assert [status for status, _, _ in answers] == [200] * 4
    assert len({answer["choices"][0]["message"]["content"] for _, answer, _ in answers}) == 1
    assert encoded(fresh) - before == 1


def test_another_question_encodes_and_sends_nothing(fresh: Gateway) -> None:
    scene, questions = drawn(5)
    asked = [fresh.ask(body=body(scene.image, question.text, max_tokens=64)) for question in questions[:1]]
    before = encoded(fresh), fresh.counted("items_total", 'step="sent"'), fresh.counted("upload_bytes_total")
    asked += [fresh.ask(body=body(scene.image, question.text, max_tokens=64)) for question in questions[1:4]]
    assert [a["choices"][0]["message"]["content"] for _, a, _ in asked] == [q.answer for q in questions[:4]]
    after = encoded(fresh), fresh.counted("items_total", 'step="sent"'), fresh.counted("upload_bytes_total")
    assert after[:2] == before[:2]
    assert after[2] - before[2] < 3 * 20_000  # ids and parameters; the picture alone is more than that


def test_a_picture_is_encoded_while_another_answer_streams(fresh: Gateway) -> None:
    long, short = shapes_scene(Random(1), 96, 96, 2).image, noise(2, 320)
    stream = fresh.client().chat.completions.create(
        model="qwen3_vl", messages=[user(picture_part(long), "Describe the image.")], stream=True, max_tokens=3000,
        extra_body={"ignore_eos": True},
    )  # type: ignore[call-overload]  # fmt: skip
    next(stream)
    before = encoded(fresh)
    assert fresh.ask(body=body(short))[0] == 200
    assert encoded(fresh) == before + 1
    until(lambda: fresh.counted("requests_running") == 1)  # the first is still under way
    next(stream)
    stream.close()
    until(lambda: fresh.counted("requests_running") == 0)


def test_no_more_wait_for_the_tower_than_was_said(fresh: Gateway) -> None:
    """Two are in it, two more may wait; text alone does not queue."""
    pictures = [noise(10 + seed, 896) for seed in range(8)]
    bodies = [body(picture) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(fresh.ask, body=one) for one in bodies]
        until(lambda: fresh.counted("requests_waiting") == 4)
        text = {"messages": [{"role": "user", "content": "How many shapes are there?"}], "max_tokens": 2}
        assert fresh.ask(body=text)[0] == 200
        got = [answer.result() for answer in answers]
    refused = [answer["error"] for status, answer, _ in got if status == 503]
    assert refused
    assert all("--max-waiting" in error["message"] and error["type"] == "server_error" for error in refused)
    assert all(headers["Retry-After"] for status, _, headers in got if status == 503)
    assert len(refused) + sum(status == 200 for status, _, _ in got) == 8
    assert fresh.counted("requests_waiting") == 0


def test_a_caller_who_left_the_queue_is_not_encoded(fresh: Gateway) -> None:
    bodies = [body(noise(30 + seed, 896), max_tokens=1) for seed in range(4)]
    senders = [sent(fresh, one) for one in bodies]
    until(lambda: fresh.counted("requests_waiting") == 4)
    for sender in senders:
        sender.close()
    until(lambda: fresh.counted("requests_waiting") == 0)
    before = encoded(fresh)
    for one in bodies:
        assert fresh.ask(body=one)[0] == 200
    assert encoded(fresh) - before >= 2  # two may have been in the tower already, the others were not kept


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
        assert peaks[2] - peaks[0] < 40 << 20  # 64 more pictures, whose embeddings are kept
