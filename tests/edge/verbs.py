"""A verb of the device as a user types it, and the JSON that it prints."""

import json
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.__main__ import main


def command(verb: str, bundle_folder: Path, *rest: str | Path) -> list[str]:
    return [verb, "--bundle", str(bundle_folder), "--threads", "1", *map(str, rest)]


def told(capsys: pytest.CaptureFixture[str], *args: Any) -> dict[str, Any]:
    """The JSON object a verb prints."""
    assert main([*command(*args), "--json"]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]
