"""Embeddings on disk between runs: one file for each key, whole or absent. The longest unused files go first.

A file is the SHA-256 of what follows, then the two arrays in numpy's own format, without pickle. Several processes may
share a folder.
"""

import hashlib
import io
import os
import tempfile
import warnings
from contextlib import suppress
from os import PathLike
from pathlib import Path

import numpy as np

from contract.errors import InvalidInput
from contract.files import read_regular
from edge_runtime.tower.encoder import Rows

SUFFIX = ".embeddings"
DIGEST = hashlib.sha256().digest_size


class EmbeddingFiles:
    """A bounded folder of embeddings.

    Args:
        folder: where the files lie; this class makes it where it does not exist.
        max_bytes: the most bytes that the files take together.

    Raises:
        InvalidInput: this class cannot make the folder.
    """

    def __init__(self, folder: str | PathLike[str], max_bytes: int) -> None:
        self.folder, self.max_bytes = Path(folder), max_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"cache folder {self.folder} cannot be made: {error.strerror}") from error

    def get(self, key: str) -> Rows | None:
        """The rows of a key, or None; this call removes a damaged file."""
        path = self.folder / (key + SUFFIX)
        try:
            data = read_regular(path)
            os.utime(path)
        except OSError:
            return None
        if hashlib.sha256(data[DIGEST:]).digest() != data[:DIGEST]:
            path.unlink(missing_ok=True)
            return None
        file = io.BytesIO(data[DIGEST:])
        return np.load(file, allow_pickle=False), np.load(file, allow_pickle=False)

    def put(self, key: str, rows: Rows) -> None:
        """Keep the rows of a key; a full or read-only disk causes a warning and no error: no answer depends on it."""
        file = io.BytesIO()
        for array in rows:
            np.save(file, array, allow_pickle=False)
        payload = file.getvalue()
        if len(payload) + DIGEST > self.max_bytes:
            return
        try:
            handle, work = tempfile.mkstemp(prefix=".", dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as target:
                    target.write(hashlib.sha256(payload).digest() + payload)
                os.replace(work, self.folder / (key + SUFFIX))
            finally:
                Path(work).unlink(missing_ok=True)
        except OSError as error:
            warnings.warn(f"embeddings are not kept in {self.folder}: {error.strerror}", stacklevel=2)
        self._shrink()

    def _shrink(self) -> None:
        ages = []
        for path in self.folder.glob("*" + SUFFIX):
            with suppress(OSError):  # another process removed it
                status = path.stat()
                ages.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in ages)
        for _, size, path in sorted(ages):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size
