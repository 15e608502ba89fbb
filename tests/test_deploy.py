"""Manifests and configurations that people copy: Kubernetes' own schema, and the flags and ports of the launcher."""

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from edge_runtime.gateway.metrics import Metrics
from serving.__main__ import _options
from serving.metrics import METRICS, PREFIX, TIMES, codes

ROOT = Path(__file__).parent.parent
MANIFESTS = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))


def documents() -> list[Any]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


@pytest.mark.parametrize("document", documents(), ids=lambda d: f"{d['kind']} {d['metadata']['name']}")
def test_a_manifest_is_what_kubernetes_takes(document: Any) -> None:
    kubernetes_validate.validate(document, "1.30", strict=True)


def test_the_schema_notices_a_slip() -> None:
    service = next(document for document in documents() if document["kind"] == "Service")
    service["spec"]["prots"] = service["spec"].pop("ports")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, "1.30", strict=True)


def test_what_the_servers_are_started_with_exists() -> None:
    deployment = next(
        d for d in documents() if d["metadata"]["name"] == "edge-vlm-server" and d["kind"] == "Deployment"
    )
    pod = deployment["spec"]["template"]["spec"]
    compose = yaml.safe_load((ROOT / "compose.scale.yaml").read_text())
    for line in (pod["containers"][0]["args"], compose["services"]["server-1"]["command"]):
        options = _options().parse_args([*line, "--model", "folder"])
        assert options.ready_port == 8003
        assert options.drain_seconds < pod["terminationGracePeriodSeconds"] - 20
    for name in ("haproxy.cfg", "nginx.conf"):
        text = (ROOT / "deploy" / name).read_text()
        assert all(f"server-{number}:{port}" in text for number in (1, 2) for port in (8000, 8001))
    for number in (1, 2):
        for port in (8000, 8001):
            assert f"address: server-{number}, port_value: {port}" in (ROOT / "deploy/envoy.yaml").read_text()
    assert "check port 8003" in (ROOT / "deploy/haproxy.cfg").read_text()


def test_the_scaler_asks_for_a_metric_of_ours() -> None:
    scaler = next(document for document in documents() if document["kind"] == "HorizontalPodAutoscaler")
    wanted = scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert wanted in {PREFIX + metric.name for metric in METRICS}


def published_by_the_gateway() -> set[str]:
    text = Metrics(lambda: 0, lambda: 0, lambda: 0).text().decode()
    return set(re.findall(r"^# TYPE (edge_vlm_gateway_\w+) ", text, re.MULTILINE))


def test_alerts_ask_for_metrics_of_ours() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
    queries = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    asked = {name.removesuffix("_bucket") for query in queries for name in re.findall(r"edge_vlm_\w+", query)}
    server = {PREFIX + metric.name for metric in METRICS} | {f"{PREFIX}{name}_seconds" for name in TIMES}
    assert asked <= server | {"edge_vlm_errors_total"} | published_by_the_gateway()
    assert {code for query in queries for code in re.findall(r'code="(\w+)"', query)} <= codes()


def test_the_gateways_dashboard_shows_what_the_gateway_publishes() -> None:
    dashboard = json.loads((ROOT / "docs/grafana-gateway.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = {name.removesuffix("_bucket") for query in queries for name in re.findall(r"edge_vlm_\w+", query)}
    assert shown == {name for name in published_by_the_gateway() if not name.endswith("_created")}
