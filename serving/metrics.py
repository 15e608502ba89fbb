"""The engine's counters as Prometheus metrics: Triton's own latencies of a decoupled model stop before the first token."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """field names the counter in serving.engine.Stats, name the metric on Triton's metrics port."""

    field: str
    name: str
    kind: str
    meaning: str


METRICS = (
    Metric("num_active", "edge_vlm_active_requests", "gauge", "sequences being decoded"),
    Metric("num_waiting", "edge_vlm_waiting_requests", "gauge", "requests waiting for a slot"),
    Metric("num_finished", "edge_vlm_finished_requests_total", "counter", "requests answered to their end"),
    Metric("num_cancelled", "edge_vlm_cancelled_requests_total", "counter", "requests left by their client"),
    Metric("num_failed", "edge_vlm_failed_requests_total", "counter", "requests the engine failed on"),
    Metric("num_input_tokens", "edge_vlm_input_tokens_total", "counter", "prompt tokens processed"),
    Metric("num_output_tokens", "edge_vlm_output_tokens_total", "counter", "tokens generated"),
)
