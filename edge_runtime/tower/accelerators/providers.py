"""The accelerators by name: which files of a bundle each runs, and the module that opens them."""

from dataclasses import dataclass
from importlib import import_module

from contract.errors import InvalidInput, shown
from edge_runtime.tower.accelerators.grid_graph import GridGraph, Opening


@dataclass(frozen=True)
class Provider:
    """One accelerator.

    Attributes:
        module: of this package; it has `open_graph(Opening) -> GridGraph`.
        targets: of whose files in a bundle it takes one, the best first.
        devices: what may stand behind a colon in its name, the default first; empty where nothing may.
    """

    module: str
    targets: tuple[str, ...]
    devices: tuple[str, ...] = ()

    def open(self, opening: Opening) -> GridGraph:
        """Open a file.

        Raises:
            MissingExtra: the vendor's runtime is not installed.
            InvalidInput: the accelerator leaves nodes on the processor, and nobody allowed that.
            BundleError: the runtime does not take the file.
        """
        made: GridGraph = import_module(f"edge_runtime.tower.accelerators.{self.module}").open_graph(opening)
        return made


PROVIDERS = {
    "static": Provider("processor", ("onnx",)),
    "qnn": Provider("qnn", ("qnn",)),
    "rknn": Provider("rknn", ("rknn",)),
    "coreml": Provider("coreml", ("coreml",), ("NE", "GPU", "CPU")),
    "litert": Provider("litert", ("litert",)),
    "openvino": Provider("openvino", ("openvino", "onnx"), ("NPU", "GPU", "CPU")),
}


def find_provider(name: str) -> tuple[Provider, str] | None:
    """The accelerator of a provider's name, `NAME` or `NAME:DEVICE`, and the device; None where it is none of these.

    Raises:
        InvalidInput: the accelerator has no such device.
    """
    first, colon, device = name.partition(":")
    if (found := PROVIDERS.get(first)) is None:
        return None
    if colon and device not in found.devices:
        allowed = ", ".join(f"{first}:{one}" for one in found.devices) or f"{first} alone"
        raise InvalidInput(f"provider is {shown(name)}, {allowed} is allowed")
    return found, device or (found.devices[0] if found.devices else "")
