"""One gateway for the tests that leave it as they found it; those about limits start their own."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from serving.triton.launcher import TritonServer
from tests.gateway.gateway_process import Gateway, gateway_process


@pytest.fixture(scope="session")
def gateway(bundle_folder: Path, server: TritonServer) -> Iterator[Gateway]:
    with gateway_process(bundle_folder, server.grpc_url) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Gateway) -> openai.OpenAI:
    return gateway.client()
