"""What the metrics port says after requests of known size, and that the dashboard asks for nothing else."""

import json
import re
import urllib.request
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from serving.metrics import METRICS, PREFIX, TIMES, codes
from tests.serving.test_triton import LONG, metric, wait_for
from tests.serving.wire import TIMEOUT_SECONDS, opened, stream, tensors

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"


def published(server) -> dict[str, float]:
    """Every series of ours by its name with labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line.startswith(PREFIX))}


def change(server, before: dict[str, float], name: str) -> float:
    return published(server)[PREFIX + name] - before[PREFIX + name]


def test_one_answer_is_counted_once(server, cases):
    before, case = published(server), cases["one image"]
    stream(server.grpc_url, tensors(case))
    wait_for(lambda: change(server, before, "request_seconds_count") == 1)
    assert change(server, before, "finished_requests_total") == 1
    assert change(server, before, "input_tokens_total") == case.input_ids.size
    assert change(server, before, "output_tokens_total") == len(case.expected)
    for name, count in (("queue", 1), ("time_to_first_token", 1), ("inter_token", len(case.expected) - 1)):
        assert change(server, before, f"{name}_seconds_count") == count
    first, rest, whole = (
        change(server, before, f"{name}_seconds_sum") for name in ("time_to_first_token", "inter_token", "request")
    )
    assert first + rest == pytest.approx(whole, abs=1e-6)
    assert 0 <= change(server, before, "queue_seconds_sum") < first


def test_gauges_follow_a_running_request(server, cases):
    assert metric(server, "edge_vlm_kv_bytes") == 0
    with opened(server.grpc_url, tensors(cases["text"], sampling=LONG)) as (_, answers):
        answers.get(timeout=TIMEOUT_SECONDS)
        wait_for(lambda: metric(server, "edge_vlm_active_requests") == 1)
        assert 0 < metric(server, "edge_vlm_kv_bytes") < metric(server, "edge_vlm_max_kv_bytes")
    wait_for(lambda: metric(server, "edge_vlm_active_requests") == 0 == metric(server, "edge_vlm_kv_bytes"))


def test_errors_by_code(server, cases):
    before = published(server)
    assert {name for name in before if "errors_total" in name} == {
        f'edge_vlm_errors_total{{code="{code}"}}' for code in codes()
    }
    with pytest.raises(InferenceServerException):
        stream(server.grpc_url, tensors(cases["text"], sampling={"top_p": 7}))
    wait_for(lambda: change(server, before, 'errors_total{code="INVALID_ARG"}') == 1)
    assert change(server, before, 'errors_total{code="INTERNAL"}') == 0


def test_the_dashboard_asks_for_what_is_published(server):
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [item["query"] for item in dashboard["templating"]["list"]]
    asked = {name for query in queries for name in re.findall(rf"{PREFIX}\w+", query)}
    found = {re.split(r"[{ ]", name)[0] for name in published(server)}
    assert asked <= found
    shown = {name.removesuffix("_bucket") for name in asked}
    assert shown == {PREFIX + m.name for m in METRICS} | {f"{PREFIX}{t}_seconds" for t in TIMES} | {
        "edge_vlm_errors_total"
    }
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(places) == len(set(places))
