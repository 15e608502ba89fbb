"""The reference model and the real server that the serving tests share."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from serving.transformers_engine import engine as transformers_engine
from serving.transformers_engine import step
from serving.triton.launcher import TritonServer
from tests.engine import settings
from tests.serving.reference import Case, Reference
from tests.waiting import until


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    torch.set_num_threads(1)
    return Reference(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def cases(reference: Reference) -> dict[str, Case]:
    return reference.cases()


@pytest.fixture(scope="session")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    torch.set_num_threads(1)
    return Reference(tmp_path_factory.mktemp("hybrid"), is_hybrid=True)


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The same with a mixture of experts."""
    torch.set_num_threads(1)
    return Reference(tmp_path_factory.mktemp("mixture"), is_moe=True)


@pytest.fixture(scope="session")
def server(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    log_file = tmp_path_factory.mktemp("triton") / "triton.log"
    with TritonServer(settings(reference.language, dtype="fp32"), log_file=log_file) as running:
        yield running
        assert running.poll() is None, running.log_tail()
    assert "Traceback" not in log_file.read_text()


class GatedPasses:
    """The engine's passes through the model, recorded, and held until the gate opens.

    passes: of every pass its pieces, as (the request's prompt length, start, end).
    """

    def __init__(self) -> None:
        self.passes: list[list[tuple[int, int, int]]] = []
        self.gate = threading.Event()

    def forward(self, model: Any, pieces: Any) -> Any:
        assert self.gate.wait(20)
        self.passes.append([(piece.sequence.num_prompt_tokens, piece.start, piece.end) for piece in pieces])
        return step.forward(model, pieces)

    async def open_when(self, condition: Callable[[], bool]) -> None:
        await until(condition)
        self.gate.set()


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> GatedPasses:
    passes = GatedPasses()
    monkeypatch.setattr(transformers_engine, "forward", passes.forward)
    return passes
