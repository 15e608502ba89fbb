"""What each process of a server keeps of one request, by the kind of the request: thousands of one kind, then the next.

A soak mixes all kinds, so its slope says that something is kept and not of what. Here the memory of each process is read
between requests of one kind alone, and the slope is bytes per request.
"""

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from contract.names import MODEL
from serving.triton.health import fault
from serving.triton.launcher import TritonServer
from tests.engine import settings as server_settings
from tests.hostile.doors import BOUND_SECONDS, REFUSED, SERVED, TRITON, Doors, message
from tests.hostile.requests import Hostile, as_tensor, good
from tests.hostile.samples import anonymous_bytes
from tests.hostile.test_fuzz import LIMITS
from tests.serving.reference import Reference
from tests.serving.wire import tensors

NUM_READINGS, WARM_UP = 20, 1 / 2  # of a kind's requests
LEFT, PER_STREAM = "left", 4
Ask = Callable[[], str]  # what its caller saw


def kinds(doors: Doors, reference: Reference) -> dict[str, tuple[str, Ask]]:
    """Each kind of request by name: what its caller must see, and the call."""
    cases = reference.cases()
    text, picture = good(tensors(cases["text"])), tensors(cases["one image"])
    long = tensors(cases["text"], sampling={"max_tokens": 64, "ignore_eos": True})
    left = Hostile(tuple(as_tensor(name, value) for name, value in long.items()))
    refused = text.with_tensor(as_tensor("sampling_parameters", '{"temperature": -1}'))
    wrong = text.with_tensor(as_tensor("input_ids", np.ones(4, np.float32)))
    random, body = np.random.default_rng(1), b'{"text_input": "Tell me.", "max_tokens": 4}'

    def leave() -> str:
        call = doors.stub.ModelStreamInfer(iter([message(MODEL, left)]), timeout=BOUND_SECONDS)
        next(call)
        call.cancel()
        return LEFT

    def several() -> str:
        """Some requests of one stream, one after the other."""
        asked = itertools.repeat(message(MODEL, text), PER_STREAM)
        final = 0
        for answer in doors.stub.ModelStreamInfer(asked, timeout=BOUND_SECONDS):
            assert not answer.error_message, answer.error_message
            final += answer.infer_response.parameters["triton_final_response"].bool_param
        return SERVED if final == PER_STREAM else f"{final} answers"

    def upload() -> str:
        """A new picture each time."""
        new = {
            name: random.standard_normal(value.shape, np.float32)
            for name, value in picture.items()
            if name.endswith("embeddings_fp32")
        }
        return doors.unary(good(picture | new)).kind

    return {
        "stream": (SERVED, lambda: doors.stream(text).kind),
        f"{PER_STREAM} requests in one stream": (SERVED, several),
        "stream left by its client": (LEFT, leave),
        "stream refused by the model": (REFUSED, lambda: doors.stream(refused).kind),
        "stream refused by Triton": (TRITON, lambda: doors.stream(wrong).kind),
        "unary gRPC": (SERVED, lambda: doors.unary(text).kind),
        "unary gRPC with a new picture": (SERVED, upload),
        "unary gRPC refused by the model": (REFUSED, lambda: doors.unary(refused).kind),
        "HTTP infer": (SERVED, lambda: doors.infer(text).kind),
        "HTTP infer refused by Triton": (TRITON, lambda: doors.infer(wrong).kind),
        "generate": (SERVED, lambda: doors.generate(body).kind),
        "generate_stream": (SERVED, lambda: doors.generate_stream(body).kind),
    }


def kept_bytes(readings: list[tuple[int, dict[str, int]]]) -> dict[str, int]:
    """Bytes per request of each process: the slope over (number of requests, bytes by process), after the warm-up."""
    warm = readings[int(len(readings) * WARM_UP) :]
    counts = [count for count, _ in warm]
    names = set.intersection(*(set(found) for _, found in warm))
    return {name: round(float(np.polyfit(counts, [f[name] for _, f in warm], 1)[0])) for name in sorted(names)}


def kept(reference: Reference, num_requests: int, only: str | None = None) -> dict[str, Any]:
    """Bytes that each process keeps of one request of each kind, over num_requests of it.

    Args:
        only: the one kind to ask; None asks all.
    """
    torch.set_num_threads(1)  # of the reference, beside other work
    limits, found, wrong = replace(LIMITS, max_reuse_bytes=1 << 20), dict[str, dict[str, int]](), list[str]()
    with TritonServer(server_settings(reference.language, limits, dtype="fp32")) as server:
        doors = Doors(server.http_url, server.grpc_url)
        for kind, (expected, ask) in kinds(doors, reference).items():
            if only not in (None, kind):
                continue
            readings = [(0, anonymous_bytes(server.shm_prefix))]
            for count in range(1, num_requests + 1):
                if (seen := ask()) != expected:
                    wrong.append(f"{kind}: {seen}")
                if count % (num_requests // NUM_READINGS) == 0:
                    readings.append((count, anonymous_bytes(server.shm_prefix)))
            found[kind] = kept_bytes(readings)
            print(f"{kind}: {found[kind]}", file=sys.stderr, flush=True)
        doors.close()
        found_fault = fault(server.http_url)
    return {
        "requests_of_a_kind": num_requests,
        "kept_bytes_per_request": found,
        "wrong": wrong[:20],
        "fault_at_the_end": found_fault,
        "is_sound": not (wrong or found_fault),
    }
