"""An engine whose step never ends is found by the probe, and the server is started again; nobody waits for ever.

The real server, whose copy of model.py waits 3 s in place of 120, takes 20 ms more for each step, so that an answer
outlives the test on a fast machine, too, and holds each step while a file exists.
"""

import time
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from contract.limits import Limits
from contract.names import MODEL
from serving.settings import Settings
from serving.transformers_engine.engine import TransformersEngine
from serving.triton.health import fault
from serving.triton.launcher import TritonServer
from tests.serving.reference import Case, Reference
from tests.serving.test_health import pid_of
from tests.serving.test_triton import LONG
from tests.serving.wire import TIMEOUT_SECONDS, opened, stream, tensors
from tests.waiting import wait_for

HOLD = """

import time
from serving.transformers_engine.engine import TransformersEngine
_step = TransformersEngine._step
def _held(self, pieces):
    time.sleep(0.02)
    while Path({flag!r}).exists():
        time.sleep(0.05)
    _step(self, pieces)
TransformersEngine._step = _held
"""


class Holding(TritonServer):
    """A server whose steps do not end while the file `flag` exists."""

    flag = ""

    def _launch(self, folder: Path) -> None:
        path = folder / "models" / MODEL / "1" / "model.py"
        text = path.read_text()
        assert "\nSTALL_SECONDS = 120 " in text
        path.write_text(text.replace("\nSTALL_SECONDS = 120 ", "\nSTALL_SECONDS = 3 ") + HOLD.format(flag=self.flag))
        super()._launch(folder)


def test_a_stalled_engine_is_found_and_replaced(reference: Reference, cases: dict[str, Case], tmp_path: Path) -> None:
    flag, calm = tmp_path / "hold", tensors(cases["text"])
    server = Holding(Settings(str(reference.language), dtype="fp32", num_threads=1), log_file=tmp_path / "log")
    server.flag = str(flag)
    with server:
        expected = stream(server.grpc_url, calm)[0]
        pid = pid_of(server, "bin/tritonserver")
        with opened(server.grpc_url, tensors(cases["text"], sampling=LONG)) as (_, answers):
            assert answers.get(timeout=TIMEOUT_SECONDS)[1] is None
            time.sleep(4)
            assert fault(server.http_url) is None  # slow for a while is not stalled: steps end
            flag.touch()
            wait_for(lambda: "makes no progress" in (fault(server.http_url) or ""), TIMEOUT_SECONDS)
            while (error := answers.get(timeout=TIMEOUT_SECONDS)[1]) is None:
                pass  # tokens that were on their way
        assert isinstance(error, InferenceServerException)
        wait_for(lambda: pid_of(server, "bin/tritonserver") not in (None, pid), TIMEOUT_SECONDS)
        flag.unlink()
        wait_for(lambda: fault(server.http_url) is None, TIMEOUT_SECONDS)
        assert stream(server.grpc_url, calm)[0] == expected


@pytest.mark.parametrize("seconds", [0.0, 100.0])
def test_an_engine_without_work_never_stalls(reference: Reference, seconds: float) -> None:
    """However long ago its last step was."""
    engine = TransformersEngine.load(reference.language, Limits(), "fp32", 1)
    try:
        engine._advanced_seconds -= seconds
        assert engine.stalled_seconds() == 0
    finally:
        engine.close()
