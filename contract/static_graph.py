"""A graph of one picture size in an edge bundle, made for an accelerator: what the manifest says of it."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from contract.errors import BundleError, shown
from contract.files import is_plain_name
from contract.typed import Between

MAX_PATCHES = 1 << 14
Side = Annotated[int, Between(1, MAX_PATCHES)]
TARGETS = ("onnx", "qnn", "openvino", "rknn", "coreml", "litert", "hailo")  # whose graphs a bundle may hold
WEIGHTS = "static.onnx.data"  # all ONNX graphs of a bundle share it


@dataclass(frozen=True)
class StaticGraph:
    """One file for one picture size and one accelerator.

    It takes `patches` float32 (1, height * width, 3 * patch_size^2): (byte - 128) / 128 of one slice of time of a still
    picture, in merge-block order. It gives the main rows and each level, float32 (1, rows, H) each.

    Attributes:
        height, width: sides of the picture in patches.
        target: one of TARGETS.
        precision: how the accelerator computes.
        file: its name in the bundle.
        chip: the chip for which the file is compiled; empty where it runs on every chip of the target.
        toolchain: the packages that made the file, name to version.
        figures: what the gate measured.
    """

    height: Side
    width: Side
    target: str
    precision: str
    file: str
    chip: str = ""
    toolchain: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise BundleError(f"target is {shown(self.target)}, known are {', '.join(TARGETS)}")
        if not is_plain_name(self.file):
            raise BundleError(f"file is {shown(self.file)}, a name of a file in the bundle is expected")
        if self.height * self.width > MAX_PATCHES:
            raise BundleError(f"the grid is {self.height} x {self.width}, at most {MAX_PATCHES} patches are allowed")

    @property
    def grid_thw(self) -> tuple[int, int, int]:
        """The grid of a picture that runs on it."""
        return 1, self.height, self.width
