"""Which of several servers a request should reach: a header by which a balancer sends a picture to one and the same.

The value follows from the first picture or video, so a conversation stays where its items are held, whoever asks, and
different pictures spread over all servers. A text alone says nothing: any server is as good.
"""

from collections.abc import Mapping
from hashlib import blake2b

from edge_runtime.request import Request

HEADER = "edge-vlm-affinity"


def affinity(headers: Mapping[str, str], request: Request, num_refused: int = 0) -> dict[str, str]:
    """The header of a request, 16 hex digits: BLAKE2b over the kind, grid and first row of its first item.

    Args:
        headers: what the caller sends with every request; an affinity of its own stands.
        num_refused: servers that sent this request away, so that the next value names another one.
    """
    if not request.items or any(name.lower() == HEADER for name in headers):
        return {}
    item = request.items[0]
    digest = blake2b(f"{item.is_video} {item.grid_thw} {num_refused}\n".encode(), digest_size=8)
    digest.update(item.main[:1].tobytes())
    return {HEADER: digest.hexdigest()}
