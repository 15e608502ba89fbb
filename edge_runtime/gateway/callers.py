"""Who may ask, and how often: API keys compared in constant time, and a bucket of requests for each of them."""

import hashlib
import hmac
import time
from collections import OrderedDict

from starlette.requests import Request

from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.settings import Settings

MAX_CALLERS = 4096  # remembered at once; the one silent for longest is forgotten, and was refilled by then


class Callers:
    """The callers that may use /v1."""

    def __init__(self, settings: Settings) -> None:
        self._keys = [hashlib.sha256(key.encode()).digest() for key in settings.api_keys]
        self._per_minute = settings.max_requests_per_minute
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # requests left, and when that was

    def key(self, request: Request) -> bytes:
        """Who is asking: the hash of the key, or the address where no keys are set.

        Raises:
            Failure: 401, no key or a wrong one.
        """
        if not self._keys:
            return (request.client.host if request.client else "").encode()
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if not given and (other := request.headers.get("x-api-key")):  # Anthropic's clients
            scheme, given = "bearer", other
        digest = hashlib.sha256(given.strip().encode()).digest()
        # every key is compared, so that the time says nothing about which one was near
        is_known = sum(hmac.compare_digest(digest, key) for key in self._keys) > 0
        if scheme.lower() != "bearer" or not is_known:
            raise Failure(401, "no valid API key: send it as 'Authorization: Bearer KEY'", code="invalid_api_key")
        return digest

    def count(self, caller: bytes) -> None:
        """Take one request out of the caller's bucket, which fills evenly over a minute.

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
                f"more than {self._per_minute} requests a minute",
                code="rate_limit_exceeded",
                retry_after_s=max(1, round((1 - left) * 60 / full)),
            )
