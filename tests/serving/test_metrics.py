"""What the metrics port says after requests of known size, and that the dashboard asks for nothing else."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from contract.limits import Limits
from serving.metrics import METRICS, PREFIX, TIMES, codes
from serving.triton.launcher import TritonServer
from tests.scrape import at_rest, fresh, published
from tests.serving.reference import Case
from tests.serving.test_triton import LONG
from tests.serving.wire import TIMEOUT_SECONDS, opened, stream, tensors
from tests.waiting import wait_for

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"


def changes(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in after.items()}


def test_one_answer_is_counted_once(server: TritonServer, cases: dict[str, Case]) -> None:
    before, case = at_rest(server), cases["one image"]
    stream(server.grpc_url, tensors(case))
    change = changes(before, at_rest(server))
    assert change["finished_requests_total"] == 1
    assert change["input_tokens_total"] == case.input_ids.size
    assert change["output_tokens_total"] == len(case.expected)
    times = {"queue": 1, "time_to_first_token": 1, "inter_token": len(case.expected) - 1, "request": 1}
    for name, count in times.items():
        assert change[f"{name}_seconds_count"] == count
    first, rest, whole = (change[f"{name}_seconds_sum"] for name in ("time_to_first_token", "inter_token", "request"))
    assert first + rest == pytest.approx(whole, abs=1e-6)
    assert 0 <= change["queue_seconds_sum"] < first


def test_the_wait_for_a_slot_is_told(server: TritonServer, cases: dict[str, Case]) -> None:
    """Every slot is taken until its reader leaves, half a second after one more was seen to wait."""
    long = tensors(cases["text"], sampling=LONG)
    with ThreadPoolExecutor(1) as pool:
        with ExitStack() as readers:
            for _ in range(Limits.max_active):
                readers.enter_context(opened(server.grpc_url, long))[1].get(timeout=TIMEOUT_SECONDS)
            before = fresh(server)
            waiting = pool.submit(stream, server.grpc_url, tensors(cases["one image"]))
            wait_for(lambda: published(server)["waiting_requests"] == 1)
            time.sleep(0.5)
        assert waiting.result(TIMEOUT_SECONDS)[0] == cases["one image"].expected
    change = changes(before, at_rest(server))
    assert change["queue_seconds_count"] == 1
    assert 0.5 < change["queue_seconds_sum"] < change["time_to_first_token_seconds_sum"]


def test_gauges_follow_a_running_request(server: TritonServer, cases: dict[str, Case]) -> None:
    assert at_rest(server)["kv_bytes"] == 0
    with opened(server.grpc_url, tensors(cases["text"], sampling=LONG)) as (_, answers):
        answers.get(timeout=TIMEOUT_SECONDS)
        running = fresh(server)
        assert running["active_requests"] == 1
        assert 0 < running["kv_bytes"] < running["max_kv_bytes"]
    assert at_rest(server)["kv_bytes"] == 0


def test_errors_by_code(server: TritonServer, cases: dict[str, Case]) -> None:
    before = at_rest(server)
    assert {name for name in before if "errors_total" in name} == {f'errors_total{{code="{code}"}}' for code in codes()}
    with pytest.raises(InferenceServerException):
        stream(server.grpc_url, tensors(cases["text"], sampling={"top_p": 7}))
    change = changes(before, at_rest(server))
    assert change['errors_total{code="INVALID_ARG"}'] == 1
    assert change['errors_total{code="INTERNAL"}'] == 0


def test_the_dashboard_asks_for_what_is_published(server: TritonServer) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [item["query"] for item in dashboard["templating"]["list"]]
    asked = {name for query in queries for name in re.findall(rf"{PREFIX}\w+", query)}
    found = {PREFIX + name.split("{")[0] for name in published(server)}
    assert asked <= found
    shown = {name.removesuffix("_bucket") for name in asked}
    assert shown == {PREFIX + m.name for m in METRICS} | {f"{PREFIX}{t}_seconds" for t in TIMES} | {
        "edge_vlm_errors_total"
    }
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(places) == len(set(places))
