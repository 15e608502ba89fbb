"""docs/contract.md says what the code says."""

from dataclasses import fields

import pytest

from contract.sampling import Sampling
from contract.tensors import INPUTS, OUTPUTS, TensorSpec
from tests.conftest import ROOT

CONTRACT = (ROOT / "docs" / "contract.md").read_text()


@pytest.mark.parametrize("spec", [*INPUTS, *OUTPUTS], ids=lambda spec: spec.name)
def test_every_tensor_is_documented(spec: TensorSpec) -> None:
    assert f"| `{spec.name}` | {spec.datatype} {list(spec.shape)} | {spec.meaning} |" in CONTRACT


def test_every_sampling_name_is_documented() -> None:
    for field in fields(Sampling):
        assert f"`{field.name}`" in CONTRACT
