"""The file that a verb writes: whole, or as it was before."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from contract.errors import InvalidInput


@contextmanager
def output_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which replaces the one at `path` when the block ends well. The block writes straight into a
    device or a pipe at `path`, which nothing may replace.

    Raises:
        InvalidInput: `path` names no file, or the file cannot be written.
    """
    if not path.name:
        raise InvalidInput(f"{str(path)!r} names no file to write: give the name of one")
    is_replaced = not os.path.lexists(path) or path.is_file()
    part = path.with_name(f"{path.name}.part") if is_replaced else path
    try:
        with part.open("wb") as file:
            yield file
        if is_replaced:
            part.replace(path)
    except OSError as error:
        if is_replaced:
            with suppress(OSError):
                part.unlink()
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error
