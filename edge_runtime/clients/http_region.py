"""The steps by which a server learns of a region of shared memory over HTTP, and forgets it."""

import json

from contract.errors import InvalidInput
from edge_runtime.clients.connection import refused_region
from edge_runtime.clients.http_steps import Ask, Steps
from edge_runtime.clients.shared_regions import UNREGISTER_PAUSE_S, UNREGISTER_TRIES, Region


def register(region: Region, url: str) -> Steps:
    """Have the server at `url` open a region.

    Raises:
        InvalidInput: it cannot.
    """
    body = json.dumps({"key": region.key, "offset": 0, "byte_size": region.num_bytes}).encode()
    reply = yield Ask(f"/v2/systemsharedmemory/region/{region.name}/register", body)
    if (error := reply.error()) is not None:
        raise InvalidInput(refused_region(url, error)) from error
    region.is_registered = True


def retire(region: Region) -> Steps:
    """As shared_regions.retire."""
    try:
        for attempt in range(UNREGISTER_TRIES if region.is_registered else 0):
            path = f"/v2/systemsharedmemory/region/{region.name}/unregister"
            reply = yield Ask(path, b"", pause_s=UNREGISTER_PAUSE_S if attempt else 0)
            if "in use" not in str(reply.error()):
                break
    finally:
        region.unlink()
