"""vLLM in this process: these tests run in its own environment (`make test-vllm`), with transformers as the oracle."""

from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from contract.limits import Limits
from serving.loop import LoopThread
from serving.vllm.engine import VllmEngine
from tests.serving.conftest import cases, reference  # noqa: F401
from tests.serving.reference import Reference

KV_BYTES = 128 << 20
LOOP = LoopThread("tests")  # the engines' own, which also reads their streams


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return LOOP.submit(work).result(300)


@pytest.fixture(scope="session")
def engine(reference: Reference) -> Iterator[VllmEngine]:  # noqa: F811
    limits = Limits(max_kv_bytes=KV_BYTES, max_active=8)
    engine = VllmEngine.load(reference.language, limits, LOOP, "fp32", 1, {"block_size": 32})
    yield engine
    assert not engine.is_dead()
    engine.close()
