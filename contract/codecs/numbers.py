"""The numbers that the learned codecs need on both machines: a file of the bundle and of the language checkpoint.

The export learns them from the rows that the original tower makes of calibration pictures. Rows never depend on them,
so they are no part of the encoder's fingerprint: each codec has a hash of its own numbers, and both machines compare
that.
"""

import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.codecs.rans import TOTAL
from contract.codecs.transform import TYPES, Transform
from contract.errors import BundleError, shortened
from contract.npy import read_array
from contract.typed import check

NAME = "codec.npz"
VERSION = 1  # raise when a codec computes something else from the same numbers
HASH_DIGITS = 16
MAX_BYTES = 1 << 26  # the most of one array: 64 levels of 262,144 channels
# What zipfile raises on damage: bad marks, lengths, types of compression, a password, a stream that ends early.
DAMAGE = (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, RecursionError)
SCALE_RANGE = (2.0**-24, 2.0**24)
USED = {  # the arrays that each codec computes with; klt, which few bundles have, with those of its transform
    "int8c": ("channel_scales",),
    "int4": ("channel_scales", "int4_steps"),
    "ecq": ("channel_scales", "ecq_steps", "ecq_frequencies"),
}
ARRAYS = ("channel_scales", "int4_steps", "ecq_steps", "ecq_frequencies")


@dataclass(frozen=True, eq=False)
class CodecNumbers:
    """What the export learned for one checkpoint.

    Attributes:
        channel_scales: float32 (1+L, H), what an encoder divides each channel by: a loud channel's rms over the
            calibration rows, and one number for all other channels of its level.
        int4_steps, ecq_steps: float32 (1+L,), the step of a row in units of its rms after that division.
        ecq_frequencies: uint32 (1+L, 256), how often each pair of symbols occurs; a level's sum is rans.TOTAL.
        about: what the export learned them from and what it measured with them, as JSON values.
        transform: what klt computes with; None where nobody has learned it.

    Raises:
        BundleError: an array has another shape, or values outside its range.
    """

    channel_scales: NDArray[np.float32]
    int4_steps: NDArray[np.float32]
    ecq_steps: NDArray[np.float32]
    ecq_frequencies: NDArray[np.uint32]
    about: dict[str, Any] = field(default_factory=dict)
    transform: Transform | None = None

    def __post_init__(self) -> None:
        scales = self.channel_scales
        if scales.ndim != 2 or scales.shape[1] % 2:
            raise BundleError(f"{NAME}: channel_scales has shape {list(scales.shape)}, (1+L, even H) is expected")
        for name, values in (
            ("channel_scales", scales),
            ("int4_steps", self.int4_steps),
            ("ecq_steps", self.ecq_steps),
        ):
            if not ((values >= SCALE_RANGE[0]) & (values <= SCALE_RANGE[1])).all():
                low, high = SCALE_RANGE
                raise BundleError(
                    f"{NAME}: {name} has values from {values.min():g} to {values.max():g}, {low:g} to {high:g} is expected"
                )
        for name, values in (("int4_steps", self.int4_steps), ("ecq_steps", self.ecq_steps)):
            if values.shape != scales.shape[:1]:
                raise BundleError(f"{NAME}: {name} has shape {list(values.shape)}, {[len(scales)]} is expected")
        table = self.ecq_frequencies
        if table.shape != (len(scales), 256) or (table < 1).any() or (table.sum(axis=1) != TOTAL).any():
            raise BundleError(
                f"{NAME}: ecq_frequencies has shape {list(table.shape)}, {[len(scales), 256]} is expected, with "
                f"frequencies from 1 on that sum to {TOTAL} in each level"
            )
        if self.transform is not None and self.transform.klt_mean.size != scales.size:
            raise BundleError(
                f"{NAME}: klt_mean has {self.transform.klt_mean.size} values, a row of this model has {scales.size}"
            )

    @cached_property
    def names(self) -> dict[str, str]:
        """By codec, what the server publishes and clients send: name and hash of numbers, `int4:0123456789abcdef`."""
        found = {codec: {name: getattr(self, name) for name in names} for codec, names in USED.items()}
        if self.transform is not None:
            found["klt"] = self.transform.arrays
        return {codec: f"{codec}:{_hash(codec, arrays)}" for codec, arrays in found.items()}

    @property
    def needed_transform(self) -> Transform:
        """The transform.

        Raises:
            ValueError: there is none.
        """
        if self.transform is None:
            raise ValueError("these numbers have no transform: python -m export.codec learns one")
        return self.transform

    def write(self, folder: Path) -> None:
        """Write the file NAME into a folder."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        if self.transform is not None:
            arrays |= self.transform.arrays
        rows: dict[str, Any] = {name: np.ascontiguousarray(found) for name, found in arrays.items()}  # as readers ask
        np.savez(folder / NAME, about=np.array(json.dumps(self.about)), **rows)

    def check_model(self, hidden_size: int, num_deepstack_levels: int, source: Path) -> "CodecNumbers":
        """Compare the numbers' shape with a model's H and L; returns the numbers.

        Args:
            source: the file they come from, for the message.

        Raises:
            BundleError: the numbers belong to another model.
        """
        expected = (1 + num_deepstack_levels, hidden_size)
        if self.channel_scales.shape != expected:
            raise BundleError(
                f"{source}: channel_scales has shape {list(self.channel_scales.shape)}, the model has {list(expected)}: "
                f"copy {NAME} from a bundle of this checkpoint"
            )
        return self


def _hash(codec: str, arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(f"edge-vlm codec {codec} {VERSION}\n".encode())
    for name, values in arrays.items():
        digest.update(f"{name} {values.dtype.str}{list(values.shape)}\n".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()[:HASH_DIGITS]


def _member(file: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one array.

    Raises:
        ValueError: it has more than MAX_BYTES.
    """
    with file.open(f"{name}.npy") as member:
        data = member.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name} has more than {MAX_BYTES} bytes")
    return data


def read_numbers(folder: Path, hidden_size: int, num_deepstack_levels: int) -> CodecNumbers | None:
    """The numbers in a folder; None where it has no file NAME.

    Raises:
        BundleError: the file is damaged, or belongs to another model.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as file:
            has_transform = any(f"{name}.npy" in file.namelist() for name in TYPES)
            names = (*ARRAYS, "about", *(TYPES if has_transform else ()))
            found = {name: read_array(_member(file, name), f"{path}: {name}") for name in names}
        about = json.loads(str(found.pop("about")))
    except DAMAGE as error:
        raise BundleError(
            f"{path} holds no codec numbers: {shortened(str(error))}: copy it again from the bundle"
        ) from error
    check(dict[str, Any], about, f"{path}: about")
    types = {name: np.uint32 if name == "ecq_frequencies" else np.float32 for name in ARRAYS}
    if wrong := [name for name in ARRAYS if found[name].dtype != types[name]]:
        raise BundleError(f"{path}: {wrong[0]} is {found[wrong[0]].dtype}, {types[wrong[0]].__name__} is expected")
    transform = None
    if has_transform:
        try:
            transform = Transform(**{name: found.pop(name) for name in TYPES})
        except BundleError as error:
            raise BundleError(f"{path}: {error}: copy it again from the bundle") from error
    return CodecNumbers(**found, about=about, transform=transform).check_model(hidden_size, num_deepstack_levels, path)
