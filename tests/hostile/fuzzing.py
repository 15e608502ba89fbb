"""Hostile requests over every door for as long as asked, beside a neighbour whose tokens and gaps are compared."""

import sys
import time
from collections import Counter
from typing import Any

import numpy as np
import torch
from hypothesis import given

from serving.triton.health import fault
from serving.triton.launcher import TritonServer
from tests.engine import settings as server_settings
from tests.hostile.doors import BROKEN, HANG, INTERNAL, Doors, Outcome
from tests.hostile.neighbour import NUM_TOKENS, Neighbour
from tests.hostile.requests import Hostile, bodies, drawing, good, requests
from tests.hostile.test_fuzz import LIMITS
from tests.serving.reference import Reference
from tests.serving.wire import tensors

BATCH = 250  # requests of one door, then the next
QUIET_SECONDS = 10.0
MAX_KEPT = 20


def fuzz(reference: Reference, seconds: float) -> dict[str, Any]:
    """Counts of what callers saw, the neighbour's answers, and its gaps quiet and beside hostile requests."""
    torch.set_num_threads(1)  # of the reference, beside other work
    cases, counts, bad = reference.cases(), Counter[str](), list[str]()
    longest = 0.0

    def note(door: str, request: Any, outcome: Outcome) -> None:
        nonlocal longest
        counts[outcome.kind] += 1
        longest = max(longest, outcome.seconds)
        if outcome.kind in (INTERNAL, HANG, BROKEN) and len(bad) < MAX_KEPT:
            bad.append(f"{door} {outcome} {request!r}"[:2000])

    with TritonServer(server_settings(reference.language, LIMITS, dtype="fp32")) as server:
        calm = tensors(cases["text"], sampling={"max_tokens": NUM_TOKENS, "ignore_eos": True})
        neighbour = Neighbour(server.grpc_url, calm)
        neighbour.start()
        time.sleep(QUIET_SECONDS)
        quiet = neighbour.take_gaps()
        doors = Doors(server.http_url, server.grpc_url)
        bases = [good(tensors(cases[name])) for name in ("text", "one image", "video")]
        bases.append(good({"text_input": "Tell me something."}))

        @drawing(BATCH)
        @given(request=requests(bases))
        def by_tensors(request: Hostile) -> None:
            note(door, request, getattr(doors, door)(request))

        @drawing(BATCH)
        @given(body=bodies)
        def by_json(body: bytes) -> None:
            note(door, body, getattr(doors, door)(body))

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for door in ("stream", "unary", "infer", "generate", "generate_stream"):
                (by_json if door.startswith("generate") else by_tensors)()
            print(dict(counts), f"neighbour {neighbour.num_answers}", file=sys.stderr, flush=True)
        beside = neighbour.take_gaps()
        neighbour.end()
        doors.close()
        found_fault = fault(server.http_url)
    p99 = [round(float(np.percentile(gaps, 99)) * 1e3, 2) for gaps in (quiet, beside)]
    return {
        "requests": sum(counts.values()),
        "outcomes": dict(counts),
        "bad": bad,
        "longest_request_s": round(longest, 2),
        "neighbour_answers": neighbour.num_answers,
        "neighbour_wrong": neighbour.num_wrong,
        "neighbour_errors": neighbour.errors[:MAX_KEPT],
        "neighbour_gap_p99_ms": {"quiet": p99[0], "beside": p99[1]},
        "fault_at_the_end": found_fault,
        "is_sound": not (bad or neighbour.num_wrong or neighbour.errors or found_fault),
    }
