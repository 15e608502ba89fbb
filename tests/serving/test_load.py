"""The load tool and the commands for GPU machines, run small against the real server."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import load
from benchmarks.chart import Panel, draw_chart
from benchmarks.perf_analyzer import folder, read
from examples.perf_analyzer.make_inputs import write_inputs
from serving.triton.build import IMAGE
from serving.triton.launcher import TritonServer

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "examples" / "perf_analyzer" / "README.md").read_text()


def test_the_commands_of_the_guide(server: TritonServer, tmp_path: Path) -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)
    make, remove, *loads = block.splitlines()
    assert [shlex.split(line)[0] for line in loads] == ["perf_analyzer", "perf_analyzer"]
    tool = f"LD_LIBRARY_PATH={folder() / 'lib'} {folder() / 'bin' / 'perf_analyzer'}"
    lines = [make.replace("python -m", f"PYTHONPATH={ROOT} {sys.executable} -m"), remove, *loads]
    for line in [*lines, *lines]:  # nothing that the first run leaves is in the second one's way
        small = (
            line.replace("1x32x32", "1x4x4").replace("1x16x24", "1x4x8").replace("--max-tokens 64", "--max-tokens 4")
        )
        small = small.replace("1:16:5", "1:2:1").replace("-interval 5000", "-interval 200")
        small = small.replace("127.0.0.1:8000", server.http_url).replace("127.0.0.1:8001", server.grpc_url)
        small = re.sub(r"^perf_analyzer", tool, small)
        done = subprocess.run(small, shell=True, cwd=tmp_path, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for export, num_responses in (("grpc", 4), ("http", 1)):
        text = (tmp_path / "load" / f"{export}.json").read_bytes().decode(errors="replace")
        experiments = json.loads(text, strict=False)["experiments"]
        assert [e["experiment"]["value"] for e in experiments] == [1, 2]
        assert {len(r["response_timestamps"]) for e in experiments for r in e["requests"]} == {num_responses}
    assert "--shape" not in block
    assert f"tritonserver:{IMAGE.release}-py3-sdk" in GUIDE


def test_both_doors_are_measured(server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = load.measure(server, (1, 4, 4), 4, [1, 2], 200)
    assert [(row.door, row.concurrency) for row in rows] == [
        (door, n) for n in (1, 2) for door in ("grpc stream", "http unary")
    ]
    for row in rows:
        assert row.num_requests > 0
        assert row.tokens_per_second == pytest.approx(4 * row.requests_per_second, rel=0.01)
        assert (row.first_token_p50_ms is None) == (row.door == "http unary")
        if row.first_token_p50_ms:
            assert row.first_token_p50_ms < row.latency_p50_ms
    load.draw(rows, "title", tmp_path / "load.png")
    assert Image.open(tmp_path / "load.png").size == (1680, 400)
    assert load.table(rows).count("\n") == 2 + len(rows)


def test_figures_of_a_known_export(tmp_path: Path) -> None:
    """Two requests, half a second apart; the second one is cut off and does not count."""
    requests = [
        {"timestamp": 0, "response_timestamps": [100_000_000, 120_000_000, 140_000_000]},
        {"timestamp": 500_000_000, "response_timestamps": [560_000_000, 580_000_000, 1_000_000_000]},
        {"timestamp": 900_000_000, "response_timestamps": []},
    ]
    (tmp_path / "export.json").write_text(json.dumps({"experiments": [{"requests": requests}]}))
    row = read("grpc stream", 1, tmp_path / "export.json", 3)
    assert (row.num_requests, row.requests_per_second, row.tokens_per_second) == (2, 2.0, 6.0)
    assert (row.first_token_p50_ms, row.latency_p50_ms, row.inter_token_p50_ms) == (80.0, 320.0, 20.0)


def test_inputs_differ_and_fit_the_server(server: TritonServer, tmp_path: Path) -> None:
    write_inputs(tmp_path, server.http_url, [(1, 4, 8), (1, 6, 6)], 5)
    requests = json.loads((tmp_path / "inputs.json").read_text())["data"]
    assert len({json.dumps(request["vision_embeddings"]) for request in requests}) == len(requests)
    assert [request["vision_embeddings"]["shape"] for request in requests] == [[8, 64], [9, 64]] * 2
    assert [request["deepstack_embeddings"]["shape"] for request in requests] == [[3, 8, 64], [3, 9, 64]] * 2


def test_a_chart_is_the_same_twice(tmp_path: Path) -> None:
    panel = Panel("up", {"a": [(1, 2.0), (2, 3.5)], "b": [(1, 0.5), (2, 0.25)]})
    for name in ("1.png", "2.png"):
        draw_chart("title", "x", [panel], tmp_path / name)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
