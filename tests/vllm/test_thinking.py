"""A budget of thinking tokens on vLLM: what the other engine's test asks of an answer."""

from pathlib import Path

from contract.limits import Limits
from serving.vllm.engine import VllmEngine
from tests.serving.test_thinking import check, thinker  # noqa: F401
from tests.vllm.conftest import KV_BYTES, LOOP, run


def test_the_mark_comes_when_the_budget_is_spent(thinker: Path) -> None:  # noqa: F811
    engine = VllmEngine.load(thinker, Limits(max_kv_bytes=KV_BYTES), LOOP, "fp32", 1, {"block_size": 32})
    try:
        run(check(engine, thinker))
    finally:
        engine.close()
