"""How the export reads, writes and compares a family's tower: one module a family, by transformers' `model_type`."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from contract.families import MODULES, module_name
from contract.preprocessing import ImageProcessing

EMBEDDERS = {"clip": "clip", "siglip": "siglip", "siglip2": "siglip2"}
Read = Callable[[str], NDArray[np.float32]]

if TYPE_CHECKING:
    from contract.tiles import Tiles
    from export.families.pooled_tower import PooledTower
    from export.families.text_tower import TextTower
    from export.families.tile_facts import TileFacts
    from export.graph.builder import Builder
    from export.graph.group import Group
    from export.graph.layers import Layers
    from export.graph.tower import Tower
    from export.static.grid import Grid
    from export.static.layers import StaticLayers


class Family(Protocol):
    """What the export needs to know of a family.

    Attributes:
        SHARED: tower-local names of tensors that the server needs as well.
        VIDEO: what the family's video processor does where a file says nothing; only families whose rows stand on
            grids have it.
        FRAMES_ROUNDED: the share of a video's frames, at least one frame, that transformers' rounding may move to the
            frame beside; 0 where the device must choose exactly transformers' frames. Families with VIDEO have it.
    """

    SHARED: tuple[str, ...]
    VIDEO: Mapping[str, Any]
    FRAMES_ROUNDED: float

    def local_name(self, name: str) -> str | None:
        """The tower-local name of a checkpoint's tensor; None where the tensor is outside the tower."""

    def config(self, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """A config.json as the family's other functions read it, with the facts that other files of `folder` add.

        Args:
            values: config.json as the checkpoint has it.
            folder: the checkpoint.

        Raises:
            BundleError: such a file is missing.
        """

    def facts_of(self, folder: Path, config: Mapping[str, Any]) -> "TileFacts | None":
        """What the processor of a tile family does; None for a family whose rows stand on grids.

        Raises:
            BundleError: the processor does something that the device does not.
        """

    def tower(self, config: Mapping[str, Any]) -> "Tower":
        """The tower of a config.json.

        Raises:
            BundleError: a key is missing, or asks for something the graph does not compute.
        """

    def body(self, graph: "Builder", layers: "Layers", tower: "Tower", group: "Group") -> tuple[str, list[str]]:
        """Add the whole tower over one group of frames. Returns the graph's names of the main rows (n, out_hidden) and
        of each level's rows (1, n, out_hidden)."""

    def static(
        self, graph: "Builder", layers: "StaticLayers", tower: "Tower", grid: "Grid", patches: str
    ) -> tuple[str, list[str]]:
        """Add the whole tower over one still picture of one size; only families whose rows stand on grids have it.

        Returns:
            the graph's names of the main rows and of each level's rows, (1, n, out_hidden).

        Args:
            patches: float32 (1, patches, 3 * patch_size^2).

        Raises:
            BundleError: the family has no such graph.
        """

    def for_bytes(self, read: Read, image: ImageProcessing) -> Read:
        """`read`, which also folds the normalisation of pixels into the first layer, so that the graph takes bytes."""

    def oracle(self, config: Mapping[str, Any]) -> Any:
        """transformers' own tower, a module whose parameters have tower-local names and lie on the meta device."""


class TileFamily(Family, Protocol):
    """A family of fixed tiles."""

    def packed(
        self, config: Any, parts: NDArray[np.float32], height: int, width: int, newline: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """transformers' rows (n, H) of one picture.

        Args:
            config: transformers' config object with its defaults.
            parts: the tower's rows of the picture's tiles, (tiles, rows of a tile, H).
            height, width: the picture's size in pixels.
            newline: (H,), where the family has one.
        """


class EmbedderFamily(Protocol):
    """What the export needs to know of a model that makes one vector of a picture, and one of a text.

    Attributes:
        PADS_TO_MAX: the device fills every text to the text tower's length, and the tower sees the filling.
    """

    PADS_TO_MAX: bool

    def pictures(self, config: Any) -> "PooledTower":
        """The picture tower of a resolved config.

        Raises:
            BundleError: it asks for something the graph does not compute.
        """

    def texts(self, config: Any) -> "TextTower":
        """The text tower of a resolved config."""

    def facts_of(self, folder: Path, config: Any) -> "TileFacts":
        """What the image processor of a checkpoint does.

        Raises:
            BundleError: it does something that the device does not.
        """

    def pixels(self, given: Mapping[str, Any], tiles: "Tiles") -> NDArray[np.float32]:
        """The normalised pixels (1, 3, height, width) of one picture, from what transformers' image processor gives."""

    def features(
        self, whole: Any, tower: "Tower", tiles: "Tiles", values: NDArray[np.float32], grid_thw: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """get_image_features of transformers' model, float32 (frames, width).

        Args:
            whole: the model.
            values: normalised pixels of the device's patches, float32 (num_patches, patch_width).
            grid_thw: int64 (num_items, 3), frames, rows and columns of patches.
        """

    def body(self, graph: "Builder", layers: "Layers", tower: "Tower", group: "Group") -> tuple[str, list[str]]:
        """As Family.body; the main rows are (pictures, width), and there are no levels."""

    def for_bytes(self, read: Read, image: ImageProcessing) -> Read:
        """As Family.for_bytes."""


def find_embedder(model_type: str) -> EmbedderFamily:
    """The module of this package for the model_type of an embedding model, one of EMBEDDERS."""
    return cast(EmbedderFamily, import_module(f"{__name__}.{EMBEDDERS[model_type]}"))


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


def local_name(name: str) -> str | None:
    """The tower-local name that some family gives a tensor; None where it is outside every family's tower."""
    found = (find(model_type).local_name(name) for model_type in MODULES)
    return next((local for local in found if local is not None), None)
