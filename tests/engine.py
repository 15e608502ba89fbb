"""Which engine the servers of a run have: $EDGE_VLM_TEST_ENGINE, transformers where it is not set (`make test-vllm`)."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from contract.limits import Limits
from serving.settings import Settings

ENGINE = os.environ.get("EDGE_VLM_TEST_ENGINE", "transformers")
MAX_KV_BYTES = 256 << 20  # vLLM takes it at once


def settings(folder: Path, limits: Limits = Limits(), **values: Any) -> Settings:  # noqa: B008  it is frozen
    """Settings of a small server on one thread."""
    limits = replace(limits, max_kv_bytes=min(limits.max_kv_bytes, MAX_KV_BYTES))
    return Settings(str(folder), engine=ENGINE, num_threads=1, limits=limits, **values)
