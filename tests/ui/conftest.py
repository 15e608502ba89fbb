"""One browser and one page's server for the tests of the page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from serving.triton.launcher import TritonServer
from tests.ui.browser import browser as running_browser
from tests.ui.ui_process import ui_process


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="session")
def page_url(bundle_folder: Path, server: TritonServer) -> Iterator[str]:
    with ui_process(bundle_folder, server.grpc_url) as url:
        yield url
