"""The model families: one module on each side that needs it, found by transformers' `model_type`.

A family module has no base class; the protocols beside each `find` say what it must offer. `MODULES` is the one table:
the module of a model_type has the same name in contract.families, export.families, edge_runtime.families and
serving.families.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError

if TYPE_CHECKING:
    from contract.card import ModelCard
    from contract.prompt import Prompt
    from contract.tiles import Tiles

MODULES = {
    "qwen3_vl": "qwen3_vl",
    "qwen3_vl_moe": "qwen3_vl",
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_5_vl",
    "qwen3_5": "qwen3_5",
    "qwen3_5_moe": "qwen3_5",
    "llava": "llava",
    "llava_next": "llava_next",
    "llava_onevision": "llava_onevision",
    "internvl": "internvl",
    "smolvlm": "smolvlm",
}


class Family(Protocol):
    """What both machines know of a family.

    Attributes:
        LAYOUT: "grids" where an item's rows follow from its grid in patches, "rows" where clients send their number.
        POSITIONS: "mrope" for three axes, "1d" for one.
    """

    LAYOUT: str
    POSITIONS: str

    def card(self, config: Mapping[str, Any], encoder_fingerprint: str, tiles: "Tiles | None" = None) -> "ModelCard":
        """The card of a transformers config.json.

        Args:
            tiles: the rule of the tiles, where the family has one and the caller knows it.

        Raises:
            BundleError: a key is missing, or tower and language model do not fit.
        """

    def runs(self, grid_thw: tuple[int, int, int], card: "ModelCard") -> tuple[int, int]:
        """How the pads of an item stand in the prompt: the number of runs, and the pads of each run."""

    def positions(self, prompt: "Prompt", card: "ModelCard") -> tuple[NDArray[np.int64], int]:
        """Positions int64 (axes, S) of a checked prompt whose every row has its pad, and the position of the next token
        minus S."""


def missing_key(error: KeyError) -> BundleError:
    """The error for a config.json that lacks a key."""
    return BundleError(f"config.json has no key {error.args[0]!r}: give a complete checkpoint of the family")


def module_name(model_type: object) -> str:
    """The name of a family's modules.

    Raises:
        BundleError: no family has this model_type.
    """
    if not isinstance(model_type, str) or model_type not in MODULES:
        raise BundleError(f"model_type is {model_type!r}, supported are {', '.join(MODULES)}")
    return MODULES[model_type]


def find(model_type: object) -> Family:
    """The module of this package for a model_type.

    Raises:
        BundleError: no family has this model_type.
    """
    return cast(Family, import_module(f"{__name__}.{module_name(model_type)}"))
