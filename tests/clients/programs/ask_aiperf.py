"""NVIDIA's AIPerf, a load generator: it counts the requests that came through."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from asks import MODEL, ROOT, TOKENIZER, report

NUM_REQUESTS = 4
PICTURES = ["--image-width-mean", "64", "--image-height-mean", "64", "--image-width-stddev", "0"]
PICTURES += ["--image-height-stddev", "0"]


def run(*flags: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        command = [Path(sys.executable).parent / "aiperf", "profile", "--model", MODEL, "--url", ROOT]
        command += ["--endpoint-type", "chat", "--tokenizer", TOKENIZER, "--request-count", NUM_REQUESTS]
        command += ["--concurrency", 2, "--isl", 32, "--osl", 8, "--ui", "none", "--artifact-dir", folder, *flags]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240)
        if done.returncode:
            raise RuntimeError(done.stdout[-1000:] + done.stderr[-1000:])
        found = json.loads((Path(folder) / "profile_export_aiperf.json").read_text())
    if found["error_summary"] or found["completed_request_count"]["avg"] != NUM_REQUESTS:
        raise RuntimeError(f"{found['completed_request_count']} requests of {NUM_REQUESTS}: {found['error_summary']}")
    return found["output_sequence_length"]["avg"]


report(chat=run, picture=lambda: run(*PICTURES), stream=lambda: run(*PICTURES, "--streaming"))
