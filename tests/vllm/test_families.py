"""The families of fixed tiles on vLLM: tokens are those of transformers' `generate` on the pixels."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from safetensors.torch import load_file, save_file

from contract.errors import BundleError
from contract.limits import Limits
from contract.prompt import Prompt
from edge_runtime import Encoder, Pipeline
from serving.families import find
from serving.vllm.engine import VllmEngine
from serving.vllm.tensors import check_tensors
from tests.conftest import ROOT
from tests.families.judge import EXPECTED
from tests.families.models import KINDS
from tests.families.served import GREEDY, Served, conversations
from tests.vllm.conftest import KV_BYTES, LOOP, run
from tests.vllm.test_engine import answer, collect

# The project's own packages without vLLM's in front of them.
PLAIN = """
import os, runpy, sys
sys.path[:] = [place for place in sys.path if not os.path.isdir(os.path.join(place, "vllm"))]
sys.argv = ["judge", *sys.argv[1:]]
runpy.run_module("tests.families.judge", run_name="__main__")
"""


@dataclass(frozen=True)
class Judged:
    """A family's exports and, by conversation, the prompt of the device and the tokens of the whole model."""

    language: Path
    prompts: dict[str, Prompt]
    expected: dict[str, list[int]]


@pytest.fixture(scope="module", params=[kind for kind in KINDS if find(kind).VLLM])
def judged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    command = [sys.executable, "-c", PLAIN, family, str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=os.environ | {"PYTHONPATH": ""}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pipeline = Pipeline(Encoder.from_bundle(folder / "bundle"))
    nobody = cast(Any, None)  # neither transformers engine nor whole model in this process
    served = Served(folder / "model", folder / "bundle", folder / "language", pipeline, nobody, nobody, nobody)
    prompts = {name: served.prompt(served.request(turns)) for name, turns in conversations(family).items()}
    return Judged(served.language, prompts, json.loads((folder / EXPECTED).read_text()))


@pytest.fixture(scope="module")
def engine(judged: Judged) -> Iterator[VllmEngine]:
    limits = Limits(max_kv_bytes=KV_BYTES, max_active=8)
    engine = VllmEngine.load(judged.language, limits, LOOP, "fp32", 1, {"block_size": 32})
    yield engine
    assert not engine.is_dead()
    engine.close()


def test_tokens_are_those_of_the_whole_model(judged: Judged, engine: VllmEngine) -> None:
    """Pictures of several sizes, several turns, text alone, videos where the family has them."""
    assert len(judged.prompts) >= 6
    for name, prompt in judged.prompts.items():
        assert list(answer(engine, prompt, GREEDY)[0]) == judged.expected[name], name


def test_pictures_of_all_sizes_in_one_step(judged: Judged, engine: VllmEngine) -> None:
    """Eight at once: vLLM's own classes end the engine where two pictures of a step differ in rows."""
    names = list(judged.prompts) * 2

    async def together() -> list[list[int]]:
        found = await asyncio.gather(*(collect(engine, judged.prompts[name], GREEDY) for name in names))
        return [list(tokens) for tokens, *_ in found]

    assert len(names) >= 8
    assert run(together()) == [judged.expected[name] for name in names]


def test_a_checkpoint_without_a_tensor_is_refused(judged: Judged, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(judged.language, tmp_path / "language"))
    tensors = load_file(folder / "model.safetensors")
    del tensors[next(name for name in tensors if name.endswith("up_proj.weight"))]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BundleError, match=r"lacks 1 tensors, the first is model\..*up_proj\.weight"):
        check_tensors(folder)


def test_another_class_is_refused_by_name(judged: Judged, tmp_path: Path) -> None:
    """Before vLLM starts, with the reason."""
    folder = Path(shutil.copytree(judged.language, tmp_path / "language"))
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["PixtralForConditionalGeneration"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match="architecture is PixtralForConditionalGeneration, supported are"):
        check_tensors(folder)


def test_a_family_that_vllm_does_not_serve_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before vLLM starts, with what to do."""
    monkeypatch.setattr(find("llava"), "VLLM", "")
    config = {"model_type": "llava", "architectures": list(find("llava").ARCHITECTURES)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match="the engine vllm does not serve llava models: start with --engine tran"):
        check_tensors(tmp_path)
