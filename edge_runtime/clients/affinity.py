"""A header by which a load balancer sends every request about one picture to the same one of several servers.

The value follows from the first picture or video. So a conversation stays at the server that holds its items, whoever
asks, and different pictures spread over all servers. A request without pictures gets no header: any server is as good.
"""

from collections.abc import Mapping
from hashlib import blake2b

from edge_runtime.request import Request

HEADER = "edge-vlm-affinity"


def affinity(headers: Mapping[str, str], request: Request, num_refused: int = 0) -> dict[str, str]:
    """The header of a request, 16 hex digits: BLAKE2b over the kind, grid and first row of its first item.

    Args:
        headers: what the client sends with every request; where they hold an affinity, that one stands.
        num_refused: how many servers have sent this request away; it changes the value, so that another server gets it.

    Returns:
        The header; empty where the request has no items, or `headers` hold an affinity.
    """
    if not request.items or any(name.lower() == HEADER for name in headers):
        return {}
    item = request.items[0]
    digest = blake2b(f"{item.is_video} {item.grid_thw} {num_refused}\n".encode(), digest_size=8)
    digest.update(item.main[:1].tobytes())
    return {HEADER: digest.hexdigest()}
