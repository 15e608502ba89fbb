"""Mixed traffic for as long as asked: good requests, hostile ones, clients that leave, over every door.

Memory, threads and descriptors of each process are watched. Every minute the hostile clients rest for a while, so that
the neighbour's gaps quiet and beside them come from one run. With a rate, the run leaves most of its machine to others.
"""

import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given

from serving.triton.health import fault
from serving.triton.launcher import TritonServer
from tests.engine import settings as server_settings
from tests.hostile.doors import BROKEN, HANG, INTERNAL, Doors
from tests.hostile.neighbour import NUM_TOKENS, Neighbour
from tests.hostile.requests import Hostile, bodies, drawing, good, requests
from tests.hostile.samples import Sample, draw, sample, summary
from tests.hostile.test_fuzz import LIMITS
from tests.serving.reference import Case, Reference
from tests.serving.wire import opened, tensors

SAMPLE_SECONDS = 20.0
PERIOD_SECONDS, QUIET_SECONDS = 60.0, 12.0
REST_SECONDS = 0.01  # between two hostile requests where no rate is given
ANSWER_EVERY = 20  # hostile requests, with a rate: then the neighbour asks once
BATCH = 40
MAX_KEPT = 20
JSON_DOORS = ("generate", "generate_stream")


class Traffic(threading.Thread):
    """One client of all doors; now and then a stream that it leaves. counts are what it saw.

    Args:
        rest_seconds: how long it rests between two requests.
    """

    def __init__(self, cases: dict[str, Case], server: TritonServer, rest_seconds: float) -> None:
        super().__init__(name="traffic", daemon=True)
        self._rest_seconds = rest_seconds
        self.counts, self.bad, self.longest_seconds = Counter[str](), list[str](), 0.0
        self.is_over, self.is_resting = threading.Event(), threading.Event()
        self._bases = [good(tensors(case)) for case in cases.values()]
        self._long = tensors(cases["text"], sampling={"max_tokens": 64, "ignore_eos": True})
        self._doors, self._grpc_url = Doors(server.http_url, server.grpc_url), server.grpc_url

    def _ask(self, door: str, request: Any) -> None:
        while self.is_resting.is_set() and not self.is_over.is_set():
            time.sleep(0.1)
        if self.is_over.is_set():
            return
        outcome = getattr(self._doors, door)(request)
        self.counts[outcome.kind] += 1
        self.longest_seconds = max(self.longest_seconds, outcome.seconds)
        if outcome.kind in (INTERNAL, HANG, BROKEN) and len(self.bad) < MAX_KEPT:
            self.bad.append(f"{door} {outcome} {request!r}"[:2000])
        time.sleep(self._rest_seconds)

    def run(self) -> None:
        @drawing(BATCH)
        @given(request=requests(self._bases))
        def by_tensors(request: Hostile) -> None:
            self._ask(random.choice(("stream", "unary", "infer")), request)

        @drawing(BATCH)
        @given(body=bodies)
        def by_json(body: bytes) -> None:
            self._ask(random.choice(JSON_DOORS), body)

        while not self.is_over.is_set():
            by_tensors()
            by_json()
            for base in self._bases:
                self._ask(random.choice(("stream", "unary", "infer")), base)
            with opened(self._grpc_url, self._long) as (_, answers):
                answers.get(timeout=60)
            self.counts["left"] += 1
        self._doors.close()

    def end(self) -> None:
        self.is_over.set()
        self.join(90)


def soak(reference: Reference, seconds: float, stem: Path, rate: float | None = None) -> dict[str, Any]:
    """Slopes after the warm-up, in percent an hour for memory; writes a picture of the samples beside the line.

    Args:
        rate: the most hostile requests a second; the neighbour then rests as well. None: as fast as they are answered.
    """
    rows: dict[str, list[Sample]] = {}
    gaps: dict[bool, list[float]] = {True: [], False: []}
    torch.set_num_threads(1)  # of the reference, beside other work
    found = reference.cases()
    cases = {name: found[name] for name in ("text", "one image", "video")}
    with TritonServer(server_settings(reference.language, LIMITS, dtype="fp32")) as server:
        calm = tensors(cases["text"], sampling={"max_tokens": NUM_TOKENS, "ignore_eos": True})
        neighbour = Neighbour(server.grpc_url, calm, rest_seconds=ANSWER_EVERY / rate if rate else 0)
        neighbour.start()
        traffic = Traffic(cases, server, 1 / rate if rate else REST_SECONDS)
        traffic.start()
        begun = sampled = time.monotonic()
        while (now := time.monotonic() - begun) < seconds:
            time.sleep(0.5)
            is_quiet = now % PERIOD_SECONDS > PERIOD_SECONDS - QUIET_SECONDS
            if is_quiet != traffic.is_resting.is_set():
                (traffic.is_resting.set if is_quiet else traffic.is_resting.clear)()
                time.sleep(1)  # what was under way ends
                neighbour.take_gaps()
            gaps[is_quiet] += neighbour.take_gaps()
            if time.monotonic() - sampled > SAMPLE_SECONDS:
                sampled = time.monotonic()
                print(
                    f"{now:.0f} s: {dict(traffic.counts)}, neighbour {neighbour.num_answers}",
                    file=sys.stderr,
                    flush=True,
                )
                for name, values in sample(server.shm_prefix).items():
                    rows.setdefault(name, []).append((round(sampled - begun, 1), *values))
        traffic.end()
        neighbour.end()
        found_fault = fault(server.http_url)
    draw(rows, stem.with_suffix(".png"))
    parts = summary(rows)
    p99 = {
        name: round(float(np.percentile(gaps[kind], 99)) * 1e3, 1)
        for name, kind in (("quiet", True), ("beside", False))
    }
    flat = all(part["threads_grown"] <= 2 and part["descriptors_grown"] <= 4 for part in parts.values())
    ours = [part for name, part in parts.items() if name != "tritonserver"]  # docs/security.md has Triton's own growth
    flat = flat and all(part["rss_percent_an_hour_second_half"] <= 2 for part in ours)
    bad = traffic.bad or neighbour.num_wrong or neighbour.errors or found_fault
    return {
        "rate": rate,
        "requests": sum(traffic.counts.values()),
        "outcomes": dict(traffic.counts),
        "bad": traffic.bad,
        "longest_request_s": round(traffic.longest_seconds, 2),
        "neighbour_answers": neighbour.num_answers,
        "neighbour_wrong": neighbour.num_wrong,
        "neighbour_errors": neighbour.errors[:MAX_KEPT],
        "neighbour_gap_p99_ms": p99,
        "processes": parts,
        "fault_at_the_end": found_fault,
        "samples": rows,
        "is_sound": flat and not bad,
    }
