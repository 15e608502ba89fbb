"""The emulated machine, prepared once."""

import pytest

from tests.arm.machine import ArmMachine, prepare


@pytest.fixture(scope="session")
def arm() -> ArmMachine:
    return prepare()
