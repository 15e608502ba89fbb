"""docs/contract.md says what the code says."""

import re

import pytest

from contract.checks import CHECKS, STATUSES, VISION_CHECKS
from contract.document import PAGE, page
from contract.errors import EdgeVlmError
from serving.metrics import codes


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
    assert names - known <= {"qwen3_vl", "qwen3_vl_unary", "qwen3_vl_vision", "stream_infer", "generate_stream"}
