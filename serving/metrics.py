"""The server's metrics, on Triton's own port: Triton's latencies of a decoupled model stop before the first token.

This module publishes the engine's counters and gauges as they stand, observes TIMES for each request, and counts errors
by their code. A call to Triton's metrics crosses processes, so times and errors wait in queues for `publish`, which the
adapter's watcher calls many times a second beside the streams.
"""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contract.errors import EdgeVlmError
from serving.engine import Delta

PREFIX = "edge_vlm_"
BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True)
class Metric:
    """One metric that `Meter.publish` keeps up to date.

    Attributes:
        field: the name of its value in serving.engine.Stats or serving.requests.store.ReuseStats.
        name: the metric's name without PREFIX.
        kind: "GAUGE" or "COUNTER", as Triton's MetricFamily names them.
        meaning: the description that Triton publishes.
    """

    field: str
    name: str
    kind: str
    meaning: str


METRICS = (
    Metric("num_active", "active_requests", "GAUGE", "sequences being decoded"),
    Metric("num_waiting", "waiting_requests", "GAUGE", "requests waiting for a slot"),
    Metric("kv_bytes", "kv_bytes", "GAUGE", "memory taken for keys and values"),
    Metric("max_kv_bytes", "max_kv_bytes", "GAUGE", "memory allowed for keys and values"),
    Metric("num_finished", "finished_requests_total", "COUNTER", "requests answered to their end"),
    Metric("num_cancelled", "cancelled_requests_total", "COUNTER", "requests left by their client"),
    Metric("num_input_tokens", "input_tokens_total", "COUNTER", "prompt tokens processed"),
    Metric("num_output_tokens", "output_tokens_total", "COUNTER", "tokens generated"),
    Metric("reuse_bytes", "reuse_bytes", "GAUGE", "memory taken for embeddings that are kept by key"),
    Metric("num_reuse_hits", "reuse_hits_total", "COUNTER", "items found by key"),
    Metric("num_reuse_misses", "reuse_misses_total", "COUNTER", "keys of items that were not kept"),
    Metric(
        "reuse_saved_bytes", "reuse_saved_bytes_total", "COUNTER", "embedding bytes that keys saved from travelling"
    ),
)
QUEUE, FIRST_TOKEN, INTER_TOKEN, REQUEST = "queue", "time_to_first_token", "inter_token", "request"
TIMES = {
    QUEUE: "from a request's arrival in the engine to its slot",
    FIRST_TOKEN: "from a request's arrival to its first token",
    INTER_TOKEN: "from one token to the next",
    REQUEST: "from a request's arrival to its last token",
}


def codes(kind: type[EdgeVlmError] = EdgeVlmError) -> set[str]:
    """Every code an error can have on the wire."""
    return {kind.code}.union(*(codes(leaf) for leaf in kind.__subclasses__()))


class Meter:
    """All metrics of one model instance.

    Args:
        family: Triton's MetricFamily class, which only model.py can import.
    """

    def __init__(self, family: Any) -> None:
        self._families = {m.field: family(PREFIX + m.name, m.meaning, getattr(family, m.kind)) for m in METRICS}
        self._values = {field: kind.Metric() for field, kind in self._families.items()}
        self._published: dict[str, float] = dict.fromkeys(self._values, 0)
        self._times = {}
        for name, meaning in TIMES.items():
            self._families[name] = family(f"{PREFIX}{name}_seconds", meaning, family.HISTOGRAM)
            self._times[name] = self._families[name].Metric(buckets=list(BUCKETS_SECONDS))
        self._families["errors"] = family(
            f"{PREFIX}errors_total", "requests refused or failed, by code", family.COUNTER
        )
        self._errors = {code: self._families["errors"].Metric(labels={"code": code}) for code in codes()}
        self._observed: deque[tuple[str, float]] = deque()
        self._failed: deque[str] = deque()

    def observe(self, name: str, seconds: float) -> None:
        """Note the seconds of one of TIMES. Any thread may call this."""
        self._observed.append((name, seconds))

    def failed(self, error: EdgeVlmError) -> None:
        """Note a request that ends with an error. Any thread may call this."""
        self._failed.append(error.code)

    def publish(self, values: Mapping[str, float]) -> None:
        """Bring Triton's metrics up to date. The values come under the fields of METRICS: now, or since the start."""
        for field, metric in self._values.items():
            if change := values[field] - self._published[field]:
                metric.increment(change)
                self._published[field] = values[field]
        while self._observed:
            name, seconds = self._observed.popleft()
            self._times[name].observe(seconds)
        while self._failed:
            self._errors[self._failed.popleft()].increment(1)


class Timing:
    """The clock of one request, which starts with it."""

    def __init__(self, meter: Meter) -> None:
        self._meter, self._begun = meter, time.monotonic()
        self._latest: float | None = None

    def failed(self, error: EdgeVlmError) -> None:
        """Note that the request ends with an error."""
        self._meter.failed(error)

    def add(self, delta: Delta) -> None:
        """Note what the engine just gave."""
        now, num_further, gap = time.monotonic(), len(delta.token_ids), 0.0
        if self._latest is None:
            self._meter.observe(QUEUE, delta.queue_seconds)
            self._meter.observe(FIRST_TOKEN, now - self._begun)
            num_further -= 1  # any others came with the first
        elif num_further:
            gap = (now - self._latest) / num_further
        for _ in range(num_further):
            self._meter.observe(INTER_TOKEN, gap)
        if delta.finish_reason:
            self._meter.observe(REQUEST, now - self._begun)
        self._latest = now
