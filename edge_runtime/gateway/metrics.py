"""What /metrics tells Prometheus. Each gateway has its own registry, so several gateways in a process count apart."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PREFIX = "edge_vlm_gateway_"


class Metrics:
    """Counters of one gateway.

    Args:
        num_running, num_waiting, num_body_bytes: the functions that give the gauges' values when Prometheus asks.
    """

    def __init__(
        self, num_running: Callable[[], float], num_waiting: Callable[[], float], num_body_bytes: Callable[[], float]
    ) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        for name, meaning, read in (
            ("requests_running", "requests under way", num_running),
            ("requests_waiting", "requests that wait for the encoder or are in it", num_waiting),
            ("body_bytes", "bytes of the bodies held", num_body_bytes),
        ):
            Gauge(PREFIX + name, meaning, registry=registry).set_function(read)
        self.triton_ready = Gauge(PREFIX + "triton_ready", "1 where the last look found it ready", registry=registry)
        self.requests = Counter(
            PREFIX + "requests", "chat requests by status; 499: the caller went away", ["status"], registry=registry
        )
        self.prompt_tokens = Counter(PREFIX + "prompt_tokens", "tokens of prompts", ["kind"], registry=registry)
        self.completion_tokens = Counter(PREFIX + "completion_tokens", "tokens of answers", registry=registry)
        self.items = Counter(
            PREFIX + "items", "pictures and videos; encoded: through the tower, sent: their tensors travelled",
            ["step"], registry=registry,
        )  # fmt: skip
        self.runs = Counter(
            PREFIX + "tower_runs", "encoded pictures and videos by what ran the tower: cpu, or an accelerator and the size",
            ["runner"], registry=registry,
        )  # fmt: skip
        for kind in ("text", "image", "video"):  # so that Prometheus sees them before they count
            self.prompt_tokens.labels(kind)
        for step in ("asked", "encoded", "sent"):
            self.items.labels(step)
        self.upload_bytes = Counter(PREFIX + "upload_bytes", "tensor bytes sent to the server", registry=registry)
        self.picture_bytes = Counter(
            PREFIX + "picture_bytes",
            "bytes of requests whose pictures all travelled, by codec; jpeg: the same pixels as JPEG of quality 90",
            ["codec"], registry=registry,
        )  # fmt: skip
        self.encode_seconds = Histogram(
            PREFIX + "encode_seconds",
            "decoding, resizing and encoding of a request",
            buckets=SECONDS,
            registry=registry,
        )
        self.first_token_seconds = Histogram(
            PREFIX + "time_to_first_token_seconds", "request to first token", buckets=SECONDS, registry=registry
        )
        self.request_seconds = Histogram(
            PREFIX + "request_seconds", "request to the end of its answer", buckets=SECONDS, registry=registry
        )

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self._registry)
