"""The campaign's judge: a typed refusal is no fault, whatever status carries it; INTERNAL, silence and a lost server are."""

import grpc
import pytest
from hypothesis import given

from tests.hostile.doors import BOUND_SECONDS, BROKEN, HANG, INTERNAL, REFUSED, SERVED, TRITON, failed, judged
from tests.hostile.requests import bodies, drawing

UNAVAILABLE, DEADLINE = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED


class Ended(grpc.RpcError):
    """A call's end as grpc raises it."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self.code, self.details = lambda: code, lambda: details


@pytest.mark.parametrize(
    ("code", "details", "seconds", "kind"),
    [
        (UNAVAILABLE, "[DEADLINE_EXCEEDED] the timeout of 0.0004 s was over before the first token", 0.1, REFUSED),
        (UNAVAILABLE, "[UNAVAILABLE] 72 requests are running or waiting: try again later", 0.1, REFUSED),
        (UNAVAILABLE, "Stream removed (Socket closed)", 0.1, BROKEN),
        (DEADLINE, "Deadline Exceeded", BOUND_SECONDS, HANG),
        (grpc.StatusCode.INTERNAL, "[INTERNAL] the server failed on this request, its log says why", 0.1, INTERNAL),
        (grpc.StatusCode.INVALID_ARGUMENT, "[INVALID_ARG] temperature is -1", 0.1, REFUSED),
        (grpc.StatusCode.INVALID_ARGUMENT, "inference input data-type is 'FP32', model expects 'INT64'", 0.1, TRITON),
    ],
)
def test_how_a_call_that_ends_with_an_error_counts(
    code: grpc.StatusCode, details: str, seconds: float, kind: str
) -> None:
    assert failed(Ended(code, details), seconds).kind == kind


def test_the_campaign_draws_new_requests_in_every_round() -> None:
    """With the profile of the tests it sent the same 250 again and again."""
    seen: list[bytes] = []

    @drawing(20)
    @given(body=bodies)
    def draw(body: bytes) -> None:
        seen.append(body)

    draw()
    first = set(seen)
    draw()
    assert len(first.intersection(seen[20:])) < 15  # some are as simple as null


def test_an_answer_is_served() -> None:
    assert judged("", 0.1, is_error=False).kind == SERVED
