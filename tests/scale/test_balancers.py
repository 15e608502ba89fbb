"""Two real servers behind haproxy, nginx and Envoy: pictures are sent once, and a rolling restart loses no request.

Each test prints its figures (pytest -s), the restart as one line of JSON.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from edge_runtime import GrpcClient, HttpClient, Pipeline, Request, Sampling
from serving.settings import Settings
from serving.triton.launcher import TritonServer
from serving.triton.readiness import Readiness
from tests.scale.balancers import balanced, redis
from tests.waiting import seconds_until
from tiny_model.scenes import shapes_scene

SHORT = Sampling(max_tokens=4)
NUM_PICTURES, NUM_QUESTIONS = 50, 500
NUM_IN_RESTART, NUM_CLIENTS, LONGEST_S = 5000, 4, 480
KINDS: dict[str, Any] = {"grpc": GrpcClient, "http": HttpClient}
each_balancer = pytest.mark.parametrize("balancer", ["haproxy", "nginx", "envoy"])
each_kind = pytest.mark.parametrize("kind", list(KINDS))


@pytest.fixture(scope="module")
def asked(pipeline: Pipeline) -> list[Request]:
    random = Random(9)
    return [pipeline.ask(shapes_scene(random, 96, 96, 2).image, "What do you see?") for _ in range(NUM_PICTURES)]


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module")
def settings(language_folder: Path) -> Settings:
    return Settings(model=str(language_folder), num_threads=1)


@pytest.fixture(scope="module")
def servers(settings: Settings) -> Iterator[list[TritonServer]]:
    with TritonServer(settings) as one, TritonServer(settings) as two:
        yield [one, two]


@each_kind
@each_balancer
def test_a_picture_is_sent_once(
    servers: list[TritonServer], asked: list[Request], tmp_path: Path, balancer: str, kind: str
) -> None:
    """500 questions on 50 pictures, by clients that know nothing of each other's uploads within."""
    order = [asked[n % NUM_PICTURES] for n in range(NUM_QUESTIONS)]
    Random(3).shuffle(order)
    with balanced(balancer, servers, tmp_path) as urls, KINDS[kind](urls[kind == "http"]) as client:
        num_uploads = sum(list(client.stream(request, SHORT))[-1].num_uploaded for request in order)
    print(f"{balancer} {kind}: {num_uploads} uploads of {NUM_PICTURES} pictures in {NUM_QUESTIONS} questions")
    assert num_uploads <= NUM_PICTURES


def test_a_shared_store_answers_for_every_server(settings: Settings, store_url: str, asked: list[Request]) -> None:
    """What one server was sent another one knows, also one that started later; without the store only bytes are lost."""
    shared = Settings(settings.model, num_threads=1, reuse_store=store_url)
    with TritonServer(shared) as one, GrpcClient(one.grpc_url) as client:
        said = [list(client.stream(request, SHORT)) for request in asked[:5]]
        assert [deltas[-1].num_uploaded for deltas in said] == [1] * 5
        held = client.held
        time.sleep(0.5)  # written behind
    for url, kind in (("grpc_url", GrpcClient), ("http_url", HttpClient)):
        with TritonServer(shared) as two, kind(getattr(two, url)) as client:
            client.held.add(held)
            again = [list(client.stream(request, SHORT)) for request in asked[:5]]
            assert [deltas[-1].num_uploaded for deltas in again] == [0] * 5
            assert ["".join(d.text for d in deltas) for deltas in again] == [
                "".join(d.text for d in deltas) for deltas in said
            ]


@each_kind
@each_balancer
def test_a_rolling_restart_loses_nothing(
    settings: Settings, store_url: str, asked: list[Request], tmp_path: Path, balancer: str, kind: str
) -> None:
    """Each server is stopped and started again while four clients ask 5,000 questions without a pause.

    A client knows no keys of the others, so each sends every picture once.
    """
    shared = Settings(settings.model, num_threads=1, reuse_store=store_url)
    lost: list[str] = []
    num_answered, num_uploads, over = [0] * NUM_CLIENTS, [0] * NUM_CLIENTS, threading.Event()
    with ExitStack() as stack:
        running = [TritonServer(shared) for _ in range(2)]
        for server in running:
            server.start()
            stack.callback(server.stop)
        ports = [server.ports for server in running]
        doors = [stack.enter_context(Readiness(server.http_url, "127.0.0.1", 0)) for server in running]
        urls = stack.enter_context(balanced(balancer, running, tmp_path, [door.port for door in doors]))

        def ask(number: int) -> None:
            random = Random(number)
            with KINDS[kind](urls[kind == "http"], timeout_s=30) as client:
                while not over.is_set():
                    try:
                        last = list(client.stream(random.choice(asked), SHORT))[-1]
                        num_uploads[number] += last.num_uploaded
                        assert last.finish_reason in ("stop", "length")
                        num_answered[number] += 1
                    except Exception as error:
                        lost.append(repr(error))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(NUM_CLIENTS)]
        for thread in threads:
            thread.start()
        time.sleep(2)
        for number in range(2):
            urls[2](number)
            doors[number].leave(3)  # as python -m serving does on SIGTERM
            running[number].stop()
            running[number] = TritonServer(shared, ports[number])
            running[number].start()
            stack.callback(running[number].stop)
            doors[number].is_leaving = False
            urls[2](None)
            time.sleep(3)
        seconds_until(lambda: lost or sum(num_answered) >= NUM_IN_RESTART, LONGEST_S)
        over.set()
        for thread in threads:
            thread.join(60)
    figures = {"questions": sum(num_answered) + len(lost), "lost": len(lost), "uploads": sum(num_uploads)}
    print(json.dumps({"benchmark": "rolling_restart", "balancer": balancer, "kind": kind} | figures))
    assert not lost, lost[:5]
    assert sum(num_answered) >= NUM_IN_RESTART
