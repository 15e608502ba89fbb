"""How much one request may ask for. The server publishes the limits and checks them before it allocates."""

from dataclasses import asdict, dataclass

from contract.errors import InvalidInput

MAY_BE_ZERO = ("max_items", "max_embedding_bytes", "max_waiting", "max_reuse_bytes")


@dataclass(frozen=True)
class Limits:
    """max_items counts pictures and videos, max_embedding_bytes the request's embedding tensors together.

    Raises:
        InvalidInput: a limit is negative, or is 0 where a server could then answer nothing.
    """

    max_items: int = 64
    max_prompt_tokens: int = 32_768
    max_output_tokens: int = 8_192
    max_embedding_bytes: int = 1 << 30
    max_active: int = 16  # sequences that the engine decodes at once
    max_waiting: int = 64  # requests in the queue behind them
    max_queue_seconds: float = 60.0  # how long a request waits for a slot before the server gives it up
    max_kv_bytes: int = 4 << 30  # keys and values of all sequences; a request reserves its prompt and max_tokens
    max_reuse_bytes: int = 1 << 30  # embeddings that the server keeps for requests by key; 0 keeps none

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0 and not (value == 0 and name in MAY_BE_ZERO):
                least = "0 or more" if name in MAY_BE_ZERO else "a number above 0"
                raise InvalidInput(f"{name} is {value}, {least} is expected")
