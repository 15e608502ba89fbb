"""Both names of a served model, for tests that go through the new one and the old one."""

import pytest

from contract.names import MODEL, OLD_NAMES, UNARY_MODEL

OLD, OLD_UNARY = (next(old for old, new in OLD_NAMES.items() if new == name) for name in (MODEL, UNARY_MODEL))
STREAMING = pytest.mark.parametrize("model", [MODEL, OLD])
UNARY = pytest.mark.parametrize("model", [UNARY_MODEL, OLD_UNARY])
