"""The page's handlers get the files that a visitor uploads to this process, and no others.

A browser names its uploads by path, and any client of the page's queue can write any path there. So Uploads follows the
links of every name, and refuses a name that leads out of this process's upload folder, before anybody opens the file. A
file there lies under the hash of its content, so a client that names it has had it.
"""

from abc import ABCMeta
from pathlib import Path
from typing import Any

import gradio as gr

from contract.errors import MediaError


class Uploads:
    """The folder that uploads lie in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def file(self, name: str | None) -> str:
        """The path of the file to which a name leads.

        Raises:
            MediaError: the name leads to no file of the folder.
        """
        try:
            path = Path(name or "").resolve()
            if name and path.is_relative_to(self._folder) and path.is_file():
                return str(path)
        except (OSError, RuntimeError, ValueError):  # links in a circle, a zero in the name
            pass
        raise MediaError("the file was not uploaded to this page: choose it again")

    def checked(self, payload: Any) -> str | None:
        """The file of a component's payload; None without a payload. This call never follows the payload's `url`.

        Raises:
            gr.Error: nobody uploaded the file here; the visitor reads why.
        """
        if payload is None:
            return None
        try:
            return self.file(payload.path)
        except MediaError as error:
            raise gr.Error(str(error)) from error


def _guarded(base: type) -> Any:
    """A component that gives handlers the uploaded file as it is; the caller sets `uploads` on it.

    This call goes past Gradio's metaclass, which would write a .pyi file into this package. The component has no
    __init__ of its own, because Gradio tells the browser the arguments of __init__.
    """
    members = {
        "is_template": True,  # so that the browser knows it as the base
        "uploads": None,  # without one, every payload fails
        "preprocess": lambda self, payload: self.uploads.checked(payload),
        "__module__": __name__,
    }
    return ABCMeta.__new__(type(base), f"Guarded{base.__name__}", (base,), members)


PictureInput = _guarded(gr.Image)
VideoInput = _guarded(gr.Video)
