"""The alert rules by Prometheus' own promtool: their syntax, and that each rings where it should and no other with it."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

RULES = ROOT / "deploy" / "prometheus"
CACHE = ROOT / ".cache" / "prometheus"


@pytest.fixture(scope="module")
def promtool() -> Path:
    """Debian's, which is only unpacked: its package would start a server."""
    tool = CACHE / "usr" / "bin" / "promtool"
    if not tool.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", "prometheus"], cwd=CACHE, check=True)
        subprocess.run(["dpkg-deb", "-x", next(CACHE.glob("*.deb")), CACHE], check=True)
    return tool


def test_every_alert_rings_and_no_other(promtool: Path) -> None:
    subprocess.run([promtool, "check", "rules", RULES / "alerts.yaml"], check=True)
    subprocess.run([promtool, "test", "rules", RULES / "alerts_test.yaml"], check=True)
    rules = yaml.safe_load((RULES / "alerts.yaml").read_text())
    tried = (RULES / "alerts_test.yaml").read_text()
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert f'alertname="{rule["alert"]}"' in tried
