"""Every module of a family offers what the protocol of its package asks for: two families that land at once miss no name."""

from importlib import import_module

import pytest

from contract.families import MODULES, find

PACKAGES = ("contract", "edge_runtime", "export", "serving")
ON_GRIDS = {
    "frame_size",
    "static",
    "VIDEO",
    "FRAMES_ROUNDED",
}  # the protocols ask only families whose rows stand on grids


@pytest.mark.parametrize("name", sorted(set(MODULES.values())))
@pytest.mark.parametrize("package", PACKAGES)
def test_a_family_offers_what_its_protocol_asks_for(package: str, name: str) -> None:
    families = import_module(f"{package}.families")
    asked = {*families.Family.__annotations__, *vars(families.Family)}
    asked = {attribute for attribute in asked if not attribute.startswith("_")}
    assert len(asked) >= 3
    if find(next(kind for kind, module in MODULES.items() if module == name)).LAYOUT == "rows":
        asked -= ON_GRIDS
    module = import_module(f"{package}.families.{name}")
    assert {attribute for attribute in asked if not hasattr(module, attribute)} == set()
