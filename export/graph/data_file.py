"""The file of large tensors beside a graph, which several graphs may share.

Tensors begin at multiples of 4096 bytes, so that a device maps them instead of reading them. A tensor has one name in
all graphs that share the file, and the file holds it once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ALIGNMENT = 4096  # bytes, a memory page
MIN_EXTERNAL = 1024  # bytes; smaller tensors stay in the graph file

Array = NDArray[Any]


class DataFile:
    """A data file under construction; use it in a with statement."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            OSError: the process may not write there.
        """
        self._name, self._file = path.name, path.open("wb")
        self._written: dict[str, TensorProto] = {}

    def __enter__(self) -> "DataFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tensors(self, names: tuple[str, ...], read: Callable[[], tuple[Array, ...]]) -> list[TensorProto]:
        """The tensors that `read` makes together; nobody reads again what an earlier graph has brought.

        Raises:
            OSError: the disk is full.
        """
        if not all(name in self._written for name in names):
            for name, values in zip(names, read(), strict=True):
                self._written[name] = self._tensor(name, np.asarray(values, order="C"))
        return [self._written[name] for name in names]

    def _tensor(self, name: str, values: Array) -> TensorProto:
        file = self._file
        if values.nbytes < MIN_EXTERNAL:
            return numpy_helper.from_array(values, name)
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        tensor = TensorProto(name=name, dims=values.shape, data_type=helper.np_dtype_to_tensor_dtype(values.dtype))
        tensor.data_location = TensorProto.EXTERNAL
        places = {"location": self._name, "offset": file.tell(), "length": values.nbytes}
        for key, value in places.items():
            tensor.external_data.add(key=key, value=str(value))
        file.write(values.data)
        return tensor
