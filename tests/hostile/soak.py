"""Mixed traffic for as long as asked: streams, cancels, bad input, all doors. Memory, threads and descriptors are watched."""

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

from serving.triton.health import fault
from serving.triton.launcher import TritonServer
from serving.triton.orphans import marked
from tests.engine import settings as server_settings
from tests.hostile.doors import BROKEN, HANG, INTERNAL, Doors
from tests.hostile.neighbour import NUM_TOKENS, Neighbour
from tests.hostile.requests import Hostile, good, requests
from tests.hostile.test_fuzz import LIMITS
from tests.serving.reference import Reference
from tests.serving.test_launcher import processes
from tests.serving.wire import opened, tensors

SAMPLE_SECONDS = 2.0
WARM_UP = 1 / 3  # of the time


def sample(prefix: str) -> dict[str, tuple[float, int, int]]:
    """RSS in MB, threads and descriptors of each process of a server."""
    found, names = {}, processes()
    for pid in marked(prefix):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            facts = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue
        words = names.get(pid, [""])
        name = next(
            (part for word in words[:2] for part in Path(word).parts if part.startswith("qwen")), "tritonserver"
        )
        found[name] = (int(facts["VmRSS"].split()[0]) / 1024, int(facts["Threads"]), descriptors)
    return found


def traffic(reference: Reference, server: TritonServer, is_over: threading.Event, counts: Counter[str]) -> None:
    """One client: hostile requests, and now and then a stream that it leaves."""
    cases, doors = reference.cases(), Doors(server.http_url, server.grpc_url)
    bases = [good(tensors(cases[name])) for name in ("text", "one image", "video")]
    long = tensors(cases["text"], sampling={"max_tokens": 64, "ignore_eos": True})

    @settings(
        max_examples=40, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(request=requests(bases))
    def ask(request: Hostile) -> None:
        if is_over.is_set():
            return
        door = random.choice(("stream", "unary", "infer"))
        counts[getattr(doors, door)(request).kind] += 1

    while not is_over.is_set():
        ask()
        with opened(server.grpc_url, long) as (_, answers):
            answers.get(timeout=30)
        counts["left"] += 1
    doors.close()


def soak(reference: Reference, seconds: float, out: Path) -> dict[str, Any]:
    """Slopes after the warm-up, in percent an hour for memory, and a picture of the samples."""
    counts, is_over = Counter[str](), threading.Event()
    rows: dict[str, list[tuple[float, float, int, int]]] = {}
    with TritonServer(server_settings(reference.language, LIMITS, dtype="fp32")) as server:
        calm = tensors(reference.cases()["text"], sampling={"max_tokens": NUM_TOKENS, "ignore_eos": True})
        neighbour = Neighbour(server.grpc_url, calm)
        neighbour.start()
        client = threading.Thread(target=traffic, args=(reference, server, is_over, counts), daemon=True)
        client.start()
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            time.sleep(SAMPLE_SECONDS)
            neighbour.take_gaps()
            for name, values in sample(server.shm_prefix).items():
                rows.setdefault(name, []).append((time.monotonic() - begun, *values))
        is_over.set()
        client.join(60)
        neighbour.end()
        found_fault = fault(server.http_url)
    _draw(rows, out / "campaign_soak.png")
    parts = {name: _slopes(samples) for name, samples in rows.items()}
    bad = sum(counts[kind] for kind in (INTERNAL, HANG, BROKEN))
    flat = all(part["threads_grown"] <= 2 and part["descriptors_grown"] <= 4 for part in parts.values())
    return {
        "outcomes": dict(counts),
        "neighbour_answers": neighbour.num_answers,
        "neighbour_wrong": neighbour.num_wrong,
        "neighbour_errors": neighbour.errors[:5],
        "processes": parts,
        "fault_at_the_end": found_fault,
        "is_sound": flat and not (bad or neighbour.num_wrong or neighbour.errors or found_fault),
    }


def _slopes(samples: list[tuple[float, float, int, int]]) -> dict[str, float]:
    warm = np.array(samples[int(len(samples) * WARM_UP) :])
    times, rss, threads, descriptors = warm.T
    per_hour = np.polyfit(times, rss, 1)[0] * 3600 / rss.mean() * 100 if len(warm) > 2 else 0.0
    half = len(warm) // 2 or 1
    return {
        "rss_mb": round(float(rss[-1]), 1),
        "rss_percent_an_hour": round(float(per_hour), 1),
        "threads_grown": float(np.median(threads[half:]) - np.median(threads[:half])),
        "descriptors_grown": float(np.median(descriptors[half:]) - np.median(descriptors[:half])),
    }


def _draw(rows: dict[str, list[tuple[float, float, int, int]]], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, figsize=(8, 8), sharex=True, layout="constrained")
    for column, (axis, name) in enumerate(zip(axes, ("RSS, MB", "threads", "descriptors"), strict=True), 1):
        for process, samples in rows.items():
            axis.plot([row[0] / 60 for row in samples], [row[column] for row in samples], label=process)
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0)
    axes[0].legend()
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=100)
