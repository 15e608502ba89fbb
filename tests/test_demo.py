"""`make demo` says what happened, twice in a row and with either bundled model, and leaves nothing running."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def triton_processes() -> set[str]:
    """Process ids of servers and Python backends."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if name.endswith((b"tritonserver", b"triton_python_backend_stub")):
            found.add(folder.name)
    return found


def test_demo_twice() -> None:
    before = triton_processes()
    for seed, *model in (["7"], ["8", "--model", "models/tiny-tiles"]):
        done = subprocess.run(
            [sys.executable, "-m", "examples.demo", "--seed", seed, *model],
            cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        result = json.loads(done.stdout.splitlines()[-1])
        assert len(result["answers"]) == 3
        assert all(answer["answer"] == answer["expected"] for answer in result["answers"])
        assert result["http_answer_is_the_same"] is True
        assert result["edge_has_torch"] is False
        assert result["triton_version"].startswith("2.")
        assert result["encode_ms"] > 0
        assert result["ttft_ms"] > 0
        assert result["upload_bytes"] > 10_000 > result["later_upload_bytes"] > 0
        assert ("models/tiny-tiles" in done.stdout) == bool(model)
        for answer in result["answers"]:
            assert answer["question"] in done.stdout
        assert triton_processes() <= before
