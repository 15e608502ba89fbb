"""How a family's tower is read, written and compared: one module each, found by transformers' `model_type`."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from contract.families import MODULES, module_name
from contract.preprocessing import ImageProcessing

Read = Callable[[str], NDArray[np.float32]]

if TYPE_CHECKING:
    from export.graph.builder import Builder
    from export.graph.group import Group
    from export.graph.layers import Layers
    from export.graph.tower import Tower


class Family(Protocol):
    """What the export needs to know of a family.

    Attributes:
        PREFIXES: how the names of the tower's tensors begin in a checkpoint.
    """

    PREFIXES: tuple[str, ...]

    def tower(self, config: Mapping[str, Any]) -> "Tower":
        """The tower of a config.json.

        Raises:
            BundleError: a key is missing, or asks for something the graph does not compute.
        """

    def body(self, graph: "Builder", layers: "Layers", tower: "Tower", group: "Group") -> tuple[str, list[str]]:
        """Add the whole tower over one group of frames; returns the main rows (n, out_hidden) and each level's
        (1, n, out_hidden)."""

    def for_bytes(self, read: Read, image: ImageProcessing) -> Read:
        """`read` of tensors, with the normalisation of pixels folded into the first layer: the graph takes bytes."""

    def oracle(self, config: Mapping[str, Any]) -> Any:
        """transformers' own tower, a module whose parameters have tower-local names and lie on the meta device."""


def find(model_type: object) -> Family:
    """The module of this package for a model_type.

    Raises:
        BundleError: no family has this model_type.
    """
    return cast(Family, import_module(f"{__name__}.{module_name(model_type)}"))


def tower(config: Mapping[str, Any]) -> "Tower":
    """The tower of a config.json, by its family.

    Raises:
        BundleError: the family is unknown, or the config asks for something the graph does not compute.
    """
    return find(config.get("model_type")).tower(config)


def prefixes() -> tuple[str, ...]:
    """How the names of tower tensors begin, in any family."""
    return tuple(dict.fromkeys(prefix for name in MODULES for prefix in find(name).PREFIXES))
