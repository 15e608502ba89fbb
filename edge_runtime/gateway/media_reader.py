"""Reads what the links of a request lead to, in threads of its own: URLs and files make others wait."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from contract.errors import MediaError
from edge_runtime.gateway.data_urls import decoded
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.messages import Link
from edge_runtime.media.access import MediaAccess

NUM_READERS = 8
NOUNS = {"image": "picture", "video": "video"}


class MediaReader:
    """Reads links.

    Args:
        access: decides which URLs and files may be read.
        max_bytes: the most bytes that the URLs of one request lead to.
    """

    def __init__(self, access: MediaAccess, max_bytes: int) -> None:
        self._access, self._max_bytes = access, max_bytes
        self._threads = ThreadPoolExecutor(NUM_READERS, "media")

    def close(self) -> None:
        """End the threads; they drop work that has not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, parts: list[dict[str, Any]]) -> None:
        """Replace each Link of the parts by what it leads to.

        Raises:
            Failure: 400, a link cannot be read, or all lead to too many bytes.
        """
        num_bytes, loop = 0, asyncio.get_running_loop()
        for part in parts:
            kind = part["type"]
            links = part[kind] if isinstance(part[kind], list) else [part[kind]]
            sources = []
            for link in links:
                source = await loop.run_in_executor(self._threads, partial(self._read, link, NOUNS[kind]))
                sources.append(source)
                if not link.is_data:
                    num_bytes += len(source) if isinstance(source, bytes) else 0
                if num_bytes > self._max_bytes:
                    raise Failure(
                        400,
                        f"the URLs lead to more than {self._max_bytes} bytes (--max-body-bytes): send fewer or smaller files",
                        param=link.param,
                    )
            part[kind] = sources if isinstance(part[kind], list) else sources[0]

    def _read(self, link: Link, noun: str) -> Any:
        """What a URL leads to: bytes, or the opened file of a file:// video, so that memory need not hold it."""
        try:
            if link.is_data:
                return decoded(link.url, noun)
            if link.url.startswith("file://") and not self._access.allowed_local_media_path:
                raise MediaError(
                    "the gateway reads no file:// URLs (--allowed-local-media-path allows a folder): send a data: URL"
                )
            if not link.url.startswith("file://") and self._access.fetch is None:
                raise MediaError(
                    "the gateway fetches no http:// or https:// URLs (--allowed-media-domains allows hosts): send a data: URL"
                )
            return self._access(link.url, noun)
        except MediaError as error:
            raise Failure(400, str(error), param=link.param, code="invalid_media") from error
