"""The quick part of the campaign: a few hundred hostile requests over every door, beside a neighbour.

`make campaign` runs the same for as long as one likes, and kills, fills and soaks as well.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from contract.limits import Limits
from serving.triton.health import fault
from serving.triton.launcher import TritonServer
from tests.engine import settings as server_settings
from tests.hostile.doors import BROKEN, HANG, INTERNAL, REFUSED, SERVED, Doors, Outcome
from tests.hostile.neighbour import Neighbour
from tests.hostile.requests import Hostile, bodies, requests
from tests.hostile.targets import of_reference
from tests.serving.reference import Case, Reference
from tests.serving.test_health import pid_of

LIMITS = Limits(max_output_tokens=64, max_items=4, max_prompt_tokens=1024, max_embedding_bytes=1 << 22)
QUICK = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,  # the campaign draws new ones
    phases=[Phase.generate],  # a failure is shown as it was sent
    suppress_health_check=list(HealthCheck),
)
seen: Counter[str] = Counter()


@pytest.fixture(scope="module")
def target(reference: Reference, cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    log_file = tmp_path_factory.mktemp("hostile") / "log"
    with TritonServer(server_settings(reference.language, LIMITS, dtype="fp32"), log_file=log_file) as server:
        pid = pid_of(server, "bin/tritonserver")
        found = of_reference(reference, cases)
        neighbour = Neighbour(server.grpc_url, found.calm)
        neighbour.start()
        doors = Doors(server.http_url, server.grpc_url)
        yield doors, found.bases
        doors.close()
        neighbour.end()
        assert fault(server.http_url) is None
        assert pid_of(server, "bin/tritonserver") == pid  # nobody had to start it again
        assert not neighbour.errors
        assert neighbour.num_answers > 3
        assert neighbour.num_wrong == 0
    assert "Traceback" not in log_file.read_text()
    assert seen[SERVED] > 20
    assert seen[REFUSED] > 100


def check(outcome: Outcome) -> None:
    seen[outcome.kind] += 1
    assert outcome.kind not in (INTERNAL, HANG, BROKEN), outcome
    assert len(outcome.text) < 4000 or outcome.kind == SERVED


@pytest.mark.parametrize("door", ["stream", "unary", "infer"])
def test_tensors_and_parameters(target: Any, door: str) -> None:
    doors, bases = target

    @QUICK
    @given(request=requests(bases))
    def ask(request: Hostile) -> None:
        check(getattr(doors, door)(request))

    ask()


@pytest.mark.parametrize("door", ["generate", "generate_stream"])
def test_json_bodies(target: Any, door: str) -> None:
    doors, _ = target

    @QUICK
    @given(body=bodies)
    def ask(body: bytes) -> None:
        check(getattr(doors, door)(body))

    ask()
