"""The emulated machine, prepared once, and the bundles that its tests share."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from contract.manifest import PRECISIONS
from tests.arm.machine import ArmMachine, prepare
from tests.conftest import CHECKPOINT, run_module


@pytest.fixture(scope="session")
def arm() -> ArmMachine:
    return prepare()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, bundle_folder: Path) -> Callable[[str], Path]:
    """The bundled model's bundle in a precision, exported when it is first asked for."""
    folder = tmp_path_factory.mktemp("precisions")

    @cache
    def bundle(precision: str) -> Path:
        if precision == PRECISIONS[0]:
            return bundle_folder
        run_module("export.vision", CHECKPOINT, folder / precision, "--precision", precision)
        return folder / precision

    return bundle
