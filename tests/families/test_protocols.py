"""Every family's module has what each side asks of a family: one that is added from an older one may lack a new name."""

from typing import Any

import pytest

from contract.families import MODULES
from export import families as exported
from serving import families as served

OF_GRIDS = {"VIDEO"}  # families of tiles have no use for it


@pytest.mark.parametrize("model_type", MODULES)
@pytest.mark.parametrize("side", [exported, served], ids=["export", "serving"])
def test_a_family_is_complete(side: Any, model_type: str) -> None:
    wanted = {name for name in [*vars(side.Family), *side.Family.__annotations__] if not name.startswith("_")}
    assert len(wanted) > 5
    assert wanted - OF_GRIDS - set(dir(side.find(model_type))) == set()
