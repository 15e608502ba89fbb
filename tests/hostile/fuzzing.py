"""As many hostile requests as asked over every door of a server and its gateway, or for as long as asked, beside a neighbour.

Its tokens are compared, and its gaps: the hostile client rests after each round of doors, so that the gaps quiet and
beside it come from one run, whatever else the machine does meanwhile.
"""

import sys
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from hypothesis import given

from serving.triton.health import fault
from serving.triton.launcher import TritonServer
from tests.engine import settings as server_settings
from tests.gateway.gateway_process import gateway_process
from tests.hostile import gateway_doors
from tests.hostile.doors import BROKEN, HANG, INTERNAL, Doors, Outcome
from tests.hostile.gateway_doors import DOORS
from tests.hostile.neighbour import Neighbour
from tests.hostile.requests import Hostile, bodies, drawing, requests
from tests.hostile.targets import Target
from tests.hostile.test_fuzz import LIMITS

BATCH = 250  # requests of one door at most, then the next
QUIET_SECONDS = 3.0  # before each round
MAX_KEPT = 20
TRITON = ("stream", "unary", "infer", "generate", "generate_stream")


def fuzz(target: Target, num_requests: int, seconds: float) -> dict[str, Any]:
    """Counts of what callers saw, the neighbour's answers, and its gaps quiet and beside hostile requests."""
    torch.set_num_threads(1)  # of the reference, beside other work
    counts, by_door, bad = Counter[str](), dict[str, Counter[str]](), list[str]()
    longest = 0.0

    def note(door: str, request: Any, outcome: Outcome) -> None:
        nonlocal longest
        counts[outcome.kind] += 1
        by_door.setdefault(door, Counter())[outcome.kind] += 1
        longest = max(longest, outcome.seconds)
        if outcome.kind in (INTERNAL, HANG, BROKEN) and len(bad) < MAX_KEPT:
            bad.append(f"{door} {outcome} {request!r}"[:2000])

    with ExitStack() as stack:
        server = stack.enter_context(TritonServer(server_settings(target.language, LIMITS, dtype="fp32")))
        gateway = stack.enter_context(gateway_process(target.bundle, server.grpc_url)) if target.bundle else None
        neighbour = Neighbour(server.grpc_url, target.calm)
        neighbour.start()
        doors = Doors(server.http_url, server.grpc_url)
        batch = min(BATCH, -(-num_requests // (len(TRITON) + (len(DOORS) if gateway else 0))))

        @drawing(batch)
        @given(request=requests(target.bases))
        def by_tensors(request: Hostile) -> None:
            note(door, request, getattr(doors, door)(request))

        @drawing(batch)
        @given(body=bodies)
        def by_json(body: bytes) -> None:
            note(door, body, getattr(doors, door)(body))

        def by_gateway(path: str) -> None:
            @drawing(batch)
            @given(body=gateway_doors.bodies(path))
            def ask(body: bytes) -> None:
                note(path, body, gateway_doors.ask(gateway, path, body))

            ask()

        quiet, beside, begun = list[float](), list[float](), time.monotonic()
        while counts.total() < num_requests and time.monotonic() - begun < seconds:
            neighbour.take_gaps()
            time.sleep(QUIET_SECONDS)
            quiet += neighbour.take_gaps()
            for door in TRITON:
                (by_json if door.startswith("generate") else by_tensors)()
            for path in DOORS if gateway else ():
                by_gateway(path)
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
        "outcomes_by_door": {door: dict(found) for door, found in by_door.items()},
        "bad": bad,
        "longest_request_s": round(longest, 2),
        "neighbour_answers": neighbour.num_answers,
        "neighbour_wrong": neighbour.num_wrong,
        "neighbour_errors": neighbour.errors[:MAX_KEPT],
        "neighbour_gap_p99_ms": {"quiet": p99[0], "beside": p99[1]},
        "fault_at_the_end": found_fault,
        "is_sound": not (bad or neighbour.num_wrong or neighbour.errors or found_fault),
    }
