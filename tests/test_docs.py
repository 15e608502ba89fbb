"""The pages say what the code says: docs/contract.md's tables, the Python and curl of every page, every verb and file named."""

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from contract.checks import CHECKS, STATUSES, VISION_CHECKS
from contract.document import PAGE, page
from contract.errors import EdgeVlmError
from contract.limits import Limits
from contract.names import MODEL, OLD_NAMES, UNARY_MODEL, VISION_MODEL
from edge_runtime import __version__
from edge_runtime.__main__ import _parser
from serving.__main__ import _options
from serving.metrics import codes
from serving.transformers_engine.engine import PREFILL_CHUNK_TOKENS
from serving.triton.launcher import TritonServer
from tests.conftest import ROOT
from tiny_model.scenes import shapes_scene

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON = {
    "clients.md": 2,
    "media.md": 2,
    "families.md": 1,
    "gateway.md": 1,
}  # run below, in tests/families and tests/gateway


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, bundle_folder: Path) -> Path:
    """Where a reader would type: a picture, and the exported bundle."""
    shapes_scene(Random(7), 160, 128, 4).image.save(tmp_path / "picture.png")  # make demo leaves the same
    (tmp_path / "bundle").symlink_to(bundle_folder)
    return tmp_path


def python(code: str, folder: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-c", code]
    return subprocess.run(run, cwd=folder, check=check, capture_output=True, text=True, timeout=60)


def test_every_python_block_is_run() -> None:
    """A new one without a test would rot."""
    found = {page.name: len(blocks(page.name, "python")) for page in (ROOT / "docs").glob("*.md")}
    assert {name: number for name, number in found.items() if number} == PYTHON


def test_messages(folder: Path) -> None:
    assert python(blocks("media.md", "python")[0], folder).stdout.startswith("2 items, 2 encoded, ")


def test_messages_of_others(folder: Path) -> None:
    """What the block allows and what it does not."""
    (folder / "media").mkdir()
    (folder / "picture.png").rename(folder / "media" / "picture.png")
    code = blocks("media.md", "python")[1].replace("/srv/media", str(folder / "media"))
    code += f"pipeline.ask({str(folder / 'media' / 'picture.png')!r}, 'What?')\n"
    python(code, folder)
    for other, says in (
        ("bundle/parity.png", "allowed_local_media_path"),
        ("https://example.org/x.png", "allowed_media_domains"),
    ):
        assert says in python(f"{code}pipeline.ask({other!r}, 'What?')", folder, check=False).stderr


def test_asyncio_client(folder: Path, server: TritonServer) -> None:
    code = blocks("clients.md", "python")[0].replace("127.0.0.1:8001", server.grpc_url)
    assert "two circles" in python(code, folder).stdout


def test_many_pictures(folder: Path, server: TritonServer) -> None:
    shapes_scene(Random(8), 128, 160, 2).image.save(folder / "other.png")
    code = blocks("clients.md", "python")[1].replace("127.0.0.1:8001", server.grpc_url)
    names = [line.split()[0] for line in python(code, folder).stdout.splitlines()]
    assert names == ["picture.png", "other.png"]


def test_curl(server: TritonServer) -> None:
    (line,) = blocks("clients.md", "bash")[0].splitlines()
    command = shlex.split(line.replace("127.0.0.1:8000", server.http_url))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    events = [json.loads(line.removeprefix("data: ")) for line in done.stdout.splitlines() if line]
    assert 1 <= len(events) <= 8
    assert all(event["model_name"] == "edge_vlm" and "error" not in event for event in events)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_verbs_and_files_exist(page: Path) -> None:
    """`make VERB`, and every file or folder of this repository that stands in backticks."""
    text = page.read_text()
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)[`,\n]", text)) <= verbs
    for name in re.findall(r"`((?:\w+/)+(?:[\w-]+\.\w+)?)`", text):
        assert (ROOT / name).exists() or any(ROOT.glob(f"*/{name}")) or name.startswith(PLACES), name


PLACES = ("site/", "models/", "bundle/", "v1/")  # made by a command, or of another place


def test_the_wheel_is_named_by_its_version() -> None:
    assert set(re.findall(r"edge_vlm-([\d.]+)-", (ROOT / "docs" / "devices.md").read_text())) == {__version__}


def test_the_tables_are_those_of_the_code() -> None:
    text = PAGE.read_text()
    assert page(text) == text, "run python -m contract.document"


def test_a_changed_table_is_noticed() -> None:
    text = PAGE.read_text()
    changed = text.replace("tokens since the last response", "tokens", 1)
    assert changed != text
    assert page(changed) == text
    with pytest.raises(ValueError, match="0 tables marked 'limits'"):
        page(text.replace("<!-- limits -->", ""))


def test_every_code_has_a_status() -> None:
    """UNSUPPORTED is said at start-up only, never to a client."""
    assert set(STATUSES) == codes(EdgeVlmError) - {"UNSUPPORTED"}
    used = {check.error.code for check in (*CHECKS.values(), *VISION_CHECKS.values())}
    assert used == set(STATUSES)


def test_every_request_parameter_that_is_named_exists() -> None:
    """Prose in backticks that looks like a tensor's name is one."""
    names = set(re.findall(r"`([a-z]+_[a-z_0-9]+)`", PAGE.read_text()))
    known = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
    served = {MODEL, UNARY_MODEL, VISION_MODEL, *OLD_NAMES}
    forms = {"json_object"}  # of structured_outputs
    assert names - known <= {*served, *forms, "stream_infer", "generate_stream"}


def test_the_options_of_the_gpu_page_exist() -> None:
    text = (ROOT / "docs" / "gpu.md").read_text()
    known = {option for parser in (_options(), _parser()) for option in _all(parser)}
    assert set(re.findall(r"--[a-z]+(?:-[a-z]+)*", text)) - {"--gpus"} <= known
    assert f"{Limits.max_kv_bytes >> 30} GiB" in text
    assert f"{PREFILL_CHUNK_TOKENS['cuda']:,} prompt tokens" in text


def _all(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a parser and of its verbs."""
    verbs = [
        verb
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for verb in action.choices.values()
    ]
    return {option for action in parser._actions for option in action.option_strings}.union(*map(_all, verbs))
