"""Where vLLM is not installed, the launcher says how to install it and starts nothing."""

from pathlib import Path

import pytest

from contract.errors import MissingExtra
from serving.loop import LoopThread
from serving.settings import Settings
from serving.triton.launcher import TritonServer
from serving.triton.vllm_environment import COMMAND


def test_the_command_is_named(language_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VLM_CACHE", str(tmp_path))
    server = TritonServer(Settings(str(language_folder), engine="vllm"))
    with pytest.raises(MissingExtra, match=COMMAND):
        server.start()
    assert server.poll() == 0
    assert list(tmp_path.iterdir()) == []


def test_the_engine_itself_names_the_extra(language_folder: Path) -> None:
    with pytest.raises(MissingExtra, match=r"edge-vlm\[vllm\]"):
        Settings(str(language_folder), engine="vllm").load_engine(LoopThread("tests"))
