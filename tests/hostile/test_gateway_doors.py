"""The quick part of the campaign at the gateway: hostile bodies over each of its doors, beside a neighbour."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from serving.triton.launcher import TritonServer
from tests.engine import settings as server_settings
from tests.gateway.gateway_process import Gateway, gateway_process
from tests.hostile.doors import BROKEN, HANG, INTERNAL, REFUSED, SERVED
from tests.hostile.gateway_doors import DOORS, GOOD, ask, bodies
from tests.hostile.neighbour import Neighbour
from tests.hostile.targets import of_bundle
from tests.hostile.test_fuzz import LIMITS

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def attacked(bundle_folder: Path, language_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    found = of_bundle(bundle_folder, language_folder, tmp_path_factory.mktemp("ranking") / "language")
    with (
        TritonServer(server_settings(found.language, LIMITS, dtype="fp32")) as server,
        gateway_process(bundle_folder, server.grpc_url) as gateway,
    ):
        neighbour = Neighbour(server.grpc_url, found.calm)
        neighbour.start()
        yield gateway
        neighbour.end()
        assert not neighbour.errors
        assert neighbour.num_answers > 3
        assert neighbour.num_wrong == 0


def test_every_door_has_good_bodies() -> None:
    assert set(GOOD) == set(DOORS)


@pytest.mark.parametrize("door", DOORS)
def test_bodies(attacked: Gateway, door: str) -> None:
    for body in GOOD[door]:
        outcome = ask(attacked, door, json.dumps(body).encode())
        assert outcome.kind == SERVED, outcome
    seen: Counter[str] = Counter()

    @QUICK
    @given(body=bodies(door))
    def hurt(body: bytes) -> None:
        outcome = ask(attacked, door, body)
        seen[outcome.kind] += 1
        assert outcome.kind not in (INTERNAL, HANG, BROKEN), outcome
        assert len(outcome.text) < 4000 or outcome.kind == SERVED

    hurt()
    assert seen[REFUSED] > 10
