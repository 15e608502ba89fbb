"""The folder in which the page's uploads lie: it goes with the page, and what lies in it stays within a bound.

Gradio forgets the files that it writes there, and leaves the part that came where a browser breaks an upload off. A
lock on the folder tells a later page whether its owner still runs, so that it can take away what a killed one left.
"""

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

PREFIX = "edge-vlm-page-"
MAX_BYTES = 2 << 30  # ten of the largest uploads
BROKEN_SECONDS = 60.0  # without another byte
NEW_SECONDS = 60.0  # a page that has just made its folder may not have locked it yet


class UploadFolder:
    """A temporary folder; `with UploadFolder() as folder:` makes it, and removes it when the block ends.

    Args:
        max_bytes: the most bytes of uploads; `tidy` removes the oldest ones above.

    Attributes:
        path: the folder, inside the block.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes

    def __enter__(self) -> "UploadFolder":
        remove_abandoned(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = _locked(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def tidy(self) -> None:
        """Remove the parts of uploads that nobody goes on with, and the oldest uploads above the bound."""
        files, latest = [], time.time() - BROKEN_SECONDS
        for path in self.path.rglob("*"):
            with suppress(OSError):  # Gradio has just moved it
                status = path.lstat()
                if path.is_dir():
                    continue
                if path.parent == self.path and status.st_mtime < latest:  # whole uploads have a folder each
                    path.unlink()
                else:
                    files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def remove_abandoned(parent: Path) -> None:
    """Remove this user's upload folders whose pages do not run any more."""
    for path in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another page was faster
            status = path.lstat()
            if status.st_uid != os.geteuid() or time.time() - status.st_mtime < NEW_SECONDS:
                continue
            if (lock := _locked(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _locked(path: Path) -> int | None:
    """The descriptor of a folder that this call has locked; None where another process holds it, or it is no folder."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(folder)
        return None
    return folder
