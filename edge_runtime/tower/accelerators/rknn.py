"""Rockchip's NPU by rknn-toolkit-lite2, on the board itself. A file is compiled for one chip and runs on no other."""

from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError, InvalidInput, MissingExtra, Unavailable
from edge_runtime.tower.accelerators.grid_graph import Opening

COMPATIBLE = Path("/proc/device-tree/compatible")  # names that end in NUL, such as "rockchip,rk3588s"
CORES = {"rk3588": "NPU_CORE_0_1_2", "rk3576": "NPU_CORE_0_1"}  # all of a chip's cores work on one picture


def require_chip(opening: Opening) -> None:
    """Check that this board has the chip of the file.

    Raises:
        InvalidInput: it has another one, or none of Rockchip's.
    """
    try:
        names = COMPATIBLE.read_text(errors="replace").split("\0")
    except OSError:
        names = []
    found = [name.removeprefix("rockchip,") for name in names if name.startswith("rockchip,rk")]
    if any(name.startswith(opening.chip) for name in found):  # an rk3588s runs the files of the rk3588
        return
    if not found:
        raise InvalidInput(
            f"provider rknn runs on boards with {' or '.join(CORES)}, and {COMPATIBLE} names no chip of Rockchip: run without "
            "--provider here"
        )
    own = next((chip for name in found for chip in CORES if name.startswith(chip)), None)
    remedy = f"export the bundle again with --target rknn --chip {own}" if own else "run without --provider here"
    raise InvalidInput(
        f"{opening.path.name} is compiled for the {opening.chip}, this board has the {found[-1]}: {remedy}"
    )


class RockchipGraph:
    """See GridGraph. Threads may share it; a lock gives it to one at a time, because its inputs lie in the runtime."""

    def __init__(self, opening: Opening) -> None:
        require_chip(opening)
        try:
            from rknnlite.api import RKNNLite
        except ImportError as error:
            raise MissingExtra("provider rknn", "rknn") from error
        self._lock, self._path, self._runtime = Lock(), opening.path, RKNNLite()
        cores = getattr(RKNNLite, CORES.get(opening.chip, "NPU_CORE_AUTO"))
        self._require("load_rknn", self._runtime.load_rknn(str(opening.path)))
        self._require("init_runtime", self._runtime.init_runtime(core_mask=cores))

    def _require(self, call: str, returned: int) -> None:
        """Check what a call of the runtime returned; why it failed stands in the runtime's log only.

        Raises:
            BundleError: it failed.
        """
        if returned != 0:
            raise BundleError(
                f"{self._path} cannot be opened by rknn-toolkit-lite2: {call} returned {returned}, its log above says why; "
                "install the librknnrt.so of the toolkit that the manifest names, or export the bundle again"
            )

    def run(self, patches: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """See GridGraph.

        Raises:
            Unavailable: the NPU did not answer.
        """
        with self._lock:
            found = self._runtime.inference(inputs=[patches])
        if found is None:
            raise Unavailable(f"the NPU did not answer with {self._path.name}; the log of rknn-toolkit-lite2 says why")
        return [np.asarray(rows, np.float32) for rows in found]


def open_graph(opening: Opening) -> RockchipGraph:
    """See Provider.open."""
    return RockchipGraph(opening)
