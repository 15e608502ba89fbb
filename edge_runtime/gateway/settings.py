"""What a gateway allows, fixed when it starts. The names are those of the flags of `python -m edge_runtime serve`."""

from dataclasses import dataclass

from contract.errors import InvalidInput
from contract.names import GATEWAY_NAMES
from contract.sampling import Sampling

# Greedy, as the server answers by itself; OpenAI's own default of temperature 1 makes a small model worse.
DEFAULTS = Sampling(max_tokens=1024)


@dataclass(frozen=True)
class Settings:
    """Limits and permissions.

    Attributes:
        served_model_names: names that a request may give as `model`; answers carry the first.
        defaults: the sampling parameters where a request is silent.
        api_keys: every request to /v1 must carry one of them; without keys any client may ask.
        max_requests_per_minute: of each key, or of each address where there are no keys; 0 for any number.
        allowed_origins: the origins of web pages that may read answers; "*" for all.
        allowed_hosts: the names that the Host header may have; empty for any.
        strict: refuse a body with unknown fields; without it a header of the answer names them.
        max_images, max_videos: the most pictures and videos of one request, all turns together.
        max_body_bytes: the most bytes of one request, and of all that its URLs lead to.
        max_pending_bytes: the most bytes of all bodies that the gateway holds at once.
        max_concurrency: the most requests at once, whatever they wait for. One client holds three quarters of these
            places at most.
        max_answers_per_client: the most answers that the server writes for one client at once; its other requests wait
            for their turn. 0 is seven eighths of the places that the server publishes (max_active).
        max_waiting: the most requests that wait for the tower.

    Raises:
        InvalidInput: a limit is below its least value, or a name or key is empty.
    """

    served_model_names: tuple[str, ...] = GATEWAY_NAMES
    defaults: Sampling = DEFAULTS
    api_keys: tuple[str, ...] = ()
    max_requests_per_minute: int = 0
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    strict: bool = False
    max_images: int = 16
    max_videos: int = 2
    max_body_bytes: int = 64 << 20
    max_pending_bytes: int = 256 << 20
    max_concurrency: int = 64
    max_answers_per_client: int = 0
    max_waiting: int = 32

    def __post_init__(self) -> None:
        lows = {
            "max_requests_per_minute": 0, "max_images": 0, "max_videos": 0, "max_body_bytes": 1,
            "max_concurrency": 1, "max_answers_per_client": 0, "max_waiting": 1,
        }  # fmt: skip
        for name, low in lows.items():
            if (value := getattr(self, name)) < low:
                raise InvalidInput(f"{name} is {value}, at least {low} is expected")
        if self.max_pending_bytes < self.max_body_bytes:
            raise InvalidInput(
                f"max_pending_bytes is {self.max_pending_bytes}, at least max_body_bytes {self.max_body_bytes} is expected"
            )
        if not self.served_model_names or not all(self.served_model_names):
            raise InvalidInput(f"served_model_names is {list(self.served_model_names)}, non-empty names are expected")
        if not all(self.api_keys):
            raise InvalidInput("an API key is empty: give every --api-key at least one character")
