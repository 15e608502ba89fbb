"""The frames of a video that the caller gives as pictures: a list, or a folder. Frames opens each when its turn comes.

A thousand open files would pass the system's limit, and a thousand decoded pictures its memory.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, overload

from contract.errors import MediaError, shortened

MAX_FRAMES = 1 << 12  # for a list or a folder; the bundle allows fewer


class Frames(Sequence[Any]):
    """Pictures in the order of time, as bytes, PIL images or arrays.

    Args:
        sources: what the caller gave for each frame.
        resolve: turns a source into what it leads to; Frames calls it whenever a reader asks for a frame.
        identity: tells these frames from others before anybody reads them; None where only their content does.

    Raises:
        MediaError: there are more than MAX_FRAMES sources.
    """

    def __init__(
        self, sources: Sequence[Any], resolve: Callable[[Any], Any], identity: tuple[Any, ...] | None = None
    ) -> None:
        if len(sources) > MAX_FRAMES:
            raise MediaError(f"video has {len(sources)} frames, up to {MAX_FRAMES} are allowed: sample fewer")
        self._sources, self._resolve, self.identity = sources, resolve, identity

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Frames) and None is not self.identity == other.identity)

    def __hash__(self) -> int:
        return id(self) if self.identity is None else hash(self.identity)

    def __len__(self) -> int:
        return len(self._sources)

    def name(self, place: int) -> str:
        """The name of a frame's file; empty where the frame has no file, or another process has it."""
        source = self._sources[place]
        is_path = isinstance(source, os.PathLike | str) and str(source)[:5].lower() != "data:"
        return shortened(os.path.basename(os.fspath(source))) if is_path else ""

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> "Frames": ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return Frames(self._sources[place], self._resolve)
        return self._resolve(self._sources[place])
