"""As many hostile requests as asked over every door, or for as long as asked, beside a neighbour.

Its tokens are compared, and its gaps: the hostile client rests after each round of doors, so that the gaps quiet and
beside it come from one run, whatever else the machine does meanwhile.
"""

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
QUIET_SECONDS = 3.0  # before each round
MAX_KEPT = 20


def fuzz(reference: Reference, num_requests: int, seconds: float) -> dict[str, Any]:
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

        quiet, beside, begun = list[float](), list[float](), time.monotonic()
        while counts.total() < num_requests and time.monotonic() - begun < seconds:
            neighbour.take_gaps()
            time.sleep(QUIET_SECONDS)
            quiet += neighbour.take_gaps()
            for door in ("stream", "unary", "infer", "generate", "generate_stream"):
                (by_json if door.startswith("generate") else by_tensors)()
            beside += neighbour.take_gaps()
            print(dict(counts), f"neighbour {neighbour.num_answers}", file=sys.stderr, flush=True)
        took = time.monotonic() - begun
        neighbour.end()
        doors.close()
        found_fault = fault(server.http_url)
    p99 = [round(float(np.percentile(gaps, 99)) * 1e3, 2) for gaps in (quiet, beside)]
    return {
        "requests": counts.total(),
        "requests_per_s": round(counts.total() / took, 1),
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
