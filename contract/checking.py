"""A check of files' digests on a thread, beside other work."""

import threading
from collections.abc import Mapping
from pathlib import Path

from contract.files import Identity, verify


class Checking:
    """The check of some files, which begins at once. A process that ends does not wait for it."""

    def __init__(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Arguments are those of `verify`."""
        self._found: dict[str, Identity] = {}
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._check, args=(folder, digests), name="checking", daemon=True)
        self._thread.start()

    def _check(self, folder: Path, digests: Mapping[str, str]) -> None:
        try:
            self._found = verify(folder, digests)
        except BaseException as error:  # whatever it is, the files are not checked
            self._error = error

    def found(self) -> dict[str, Identity]:
        """The identity of each file, once all are checked.

        Raises:
            BundleError: as `verify`.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found
