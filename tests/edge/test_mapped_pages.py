"""What a session holds while it loads: the weights once and not twice."""

import mmap
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.random_checkpoint import SHAPES
from contract.preprocessing import ImageProcessing
from edge_runtime.tower.mapped_pages import IS_PRESENT, PAGEMAP, given_back, is_written, mappings, states_of
from export import families
from export.graph.loop import write_graph
from tests.waiting import wait_for

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="pages are given back on Linux only")
LOAD = """
import sys
from contextlib import nullcontext
from pathlib import Path
import onnxruntime
from edge_runtime.tower.mapped_pages import given_back

def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) * 1024

before, graph = peak(), Path(sys.argv[1])
with given_back(graph.with_name(graph.name + ".data")) if sys.argv[2] == "once" else nullcontext():
    onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
print(peak() - before)
"""


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four blocks of the 2B tower, 300 MB; no two weights are equal, or onnxruntime would keep one copy of them."""
    path, numbers = tmp_path_factory.mktemp("tower") / "vision.onnx", count(1)
    config = {"model_type": "qwen3_5", "vision_config": SHAPES["2b"] | {"depth": 4, "deepstack_visual_indexes": []}}
    tower = families.tower(config)
    shapes = tower.shapes

    def read(name: str) -> NDArray[np.float32]:
        return np.full(shapes[name], next(numbers), np.float32)

    half = (0.5, 0.5, 0.5)
    write_graph(families.find(config["model_type"]), tower, read, ImageProcessing(1024, 1 << 20, half, half), path)
    return path


def peak_over_weights(graph: Path, mode: str) -> float:
    """What loading took at its peak, in a process of its own, over the size of the weights."""
    done = subprocess.run([sys.executable, "-c", LOAD, graph, mode], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout) / graph.with_name(graph.name + ".data").stat().st_size


@on_linux
def test_a_session_loads_with_its_weights_once(graph: Path) -> None:
    assert peak_over_weights(graph, "twice") > 1.9
    assert peak_over_weights(graph, "once") < 1.6


@on_linux
def test_what_was_given_back_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "two words"
    path.write_bytes(bytes(range(256)) * 4096)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        (place,) = mappings(str(path))
        with given_back(path), PAGEMAP.open("rb") as pagemap:
            for _ in range(3):
                assert mapped[:] == path.read_bytes()
                wait_for(lambda: not (states_of(place, pagemap.fileno()) & IS_PRESENT).any())
    assert mappings(str(path)) == []


@on_linux
def test_a_page_that_was_written_to_stays(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(1 << 20))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        (place,) = mappings(str(path))
        assert mapped[5000] == 0
        with PAGEMAP.open("rb") as pagemap:
            assert not is_written(states_of(place, pagemap.fileno()))
            mapped[5000] = 7
            assert is_written(states_of(place, pagemap.fileno()))
        with given_back(path):
            time.sleep(0.2)
        assert mapped[5000] == 7


def is_running() -> bool:
    return any(thread.name == "given_back" for thread in threading.enumerate())


def test_an_error_inside_ends_the_thread(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="inside"), given_back(tmp_path / "none"):
        raise RuntimeError("inside")
    assert not is_running()


@on_linux
@pytest.mark.parametrize("has_started", [False, True])
def test_control_c_at_the_start_leaves_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_started: bool
) -> None:
    """It would keep the process from ending."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if has_started:
            start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), given_back(tmp_path / "none"):
        pass
    assert not is_running()
