"""Which clients may ask, and how often: this module compares API keys in constant time, and counts by client."""

import hashlib
import hmac
import time
from collections import OrderedDict

from starlette.requests import Request

from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.settings import Settings

MAX_CALLERS = 4096  # at once; the gateway forgets the client that has been silent longest


class Callers:
    """The clients that may use /v1."""

    def __init__(self, settings: Settings) -> None:
        self._keys = [hashlib.sha256(key.encode()).digest() for key in settings.api_keys]
        self._per_minute = settings.max_requests_per_minute
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # requests left, and since when

    def key(self, request: Request) -> bytes:
        """The name of the client that asks: the SHA-256 of its key, or its address where the settings have no keys.

        Raises:
            Failure: 401, the client sends no key or a wrong one.
        """
        if not self._keys:
            return (request.client.host if request.client else "").encode()
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if not given and (other := request.headers.get("x-api-key")):  # Anthropic's clients
            scheme, given = "bearer", other
        digest = hashlib.sha256(given.strip().encode()).digest()
        # compare every key, so that the time does not tell which one is near
        is_known = sum(hmac.compare_digest(digest, key) for key in self._keys) > 0
        if scheme.lower() != "bearer" or not is_known:
            raise Failure(401, "no valid API key: send it as 'Authorization: Bearer KEY'", code="invalid_api_key")
        return digest

    def count(self, caller: bytes) -> None:
        """Take one request out of the client's bucket, which fills evenly over a minute.

        Raises:
            Failure: 429, the bucket is empty.
        """
        if not self._per_minute:
            return
        now, full = time.monotonic(), float(self._per_minute)
        left, since = self._buckets.pop(caller, (full, now))
        left = min(full, left + (now - since) * full / 60)
        self._buckets[caller] = max(left - 1, 0.0) if left >= 1 else left, now
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
        if left < 1:
            raise Failure(
                429,
                f"you sent more than {self._per_minute} requests a minute (--max-requests-per-minute): wait and try again",
                code="rate_limit_exceeded",
                retry_after_s=max(1, round((1 - left) * 60 / full)),
            )
