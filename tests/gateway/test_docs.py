"""docs/gateway.md says what the code says: flags, fields, metrics."""

import argparse
import re
import subprocess
import sys

from edge_runtime.commands import serve
from edge_runtime.commands.device import add_bundle_arguments
from edge_runtime.gateway import embeddings, rerank
from edge_runtime.gateway.chat_request import IGNORED, READ
from edge_runtime.gateway.metrics import Metrics
from edge_runtime.gateway.sampling_fields import PASSED
from tests.conftest import ROOT
from tests.gateway.gateway_process import Gateway
from tests.test_docs import blocks

DOC = (ROOT / "docs" / "gateway.md").read_text()


def test_every_flag() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_bundle_arguments(parser)
    serve.add_arguments(parser)
    flags = {option for action in parser._actions for option in action.option_strings}
    table = DOC.partition("## Flags")[2].partition("\n\n|")[2].partition("\n\n")[0]
    assert set(re.findall(r"--[a-z][a-z-]+", table)) == flags


def test_every_field() -> None:
    for name in {*PASSED, *READ, *IGNORED, *embeddings.READ, *rerank.READ}:
        assert f"`{name}`" in DOC or f"`{name}." in DOC, name


def test_every_metric() -> None:
    names = re.findall(r"^# TYPE (\S+)", Metrics(lambda: 0, lambda: 0, lambda: 0).text().decode(), re.MULTILINE)
    for name in names:
        if name.startswith("edge_vlm") and not name.endswith("_created"):
            assert f"`{name.removeprefix('edge_vlm_gateway_')}" in DOC or f"`{name}" in DOC, name


def test_the_example_of_embeddings(gateway: Gateway) -> None:
    (code,) = blocks("gateway.md", "python")
    code = code.replace("http://127.0.0.1:8080", gateway.root)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "2 64\n"
