"""The reference model and the real server that the serving tests share."""

import pytest
import torch

from serving.launcher import TritonServer
from tests.engine import settings
from tests.serving.reference import Case, Reference


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    torch.set_num_threads(1)
    return Reference(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def cases(reference: Reference) -> dict[str, Case]:
    return reference.cases()


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The same with a mixture of experts."""
    torch.set_num_threads(1)
    return Reference(tmp_path_factory.mktemp("mixture"), is_moe=True)


@pytest.fixture(scope="session")
def server(reference: Reference, tmp_path_factory: pytest.TempPathFactory):
    log_file = tmp_path_factory.mktemp("triton") / "triton.log"
    with TritonServer(settings(reference.language, dtype="fp32"), log_file=log_file) as running:
        yield running
        assert running.poll() is None, running.log_tail()
    assert "Traceback" not in log_file.read_text()
