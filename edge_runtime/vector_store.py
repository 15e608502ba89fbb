"""A file of SQLite that keeps vectors with the names of what they stand for, and finds the nearest with sqlite-vec.

Any program with SQLite and the extension sqlite-vec reads it: `items` has kind and name, `vectors` the vector of the
same rowid. apsw opens it here, because many Pythons are built without SQLite's extensions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from contract.errors import InvalidInput, MissingExtra, shown
from edge_runtime.vectors import Vectors, unit

try:
    import apsw
    import sqlite_vec
except ImportError as error:
    raise MissingExtra("a vector store", "search") from error

FAILURES = (apsw.Error, UnicodeError)  # a name that is no Unicode, or a damaged one, is not for SQLite
PICTURE, TEXT = "picture", "text"
BUSY_MS = 10_000  # wait so long for another program that writes
SHORTEST, LONGEST = 1e-12, 1e12  # of a vector: beyond, its cosines in float32 mean nothing
MOST = 4096  # the most neighbours that sqlite-vec gives
TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (kind, name));
CREATE VIRTUAL TABLE vectors USING vec0(embedding float[{width}] distance_metric=cosine, kind TEXT);
"""


class VectorStore:
    """An open store. A context manager; one thread may use it.

    Raises:
        MissingExtra: on import, where apsw or sqlite-vec is not installed.
        InvalidInput: `path` cannot be opened, or is a file of another kind.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path)
        try:
            self._database = apsw.Connection(str(self._path))
            self._database.set_busy_timeout(BUSY_MS)
            self._database.enable_load_extension(True)
            self._database.load_extension(sqlite_vec.loadable_path())
            self._database.enable_load_extension(False)
            tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except FAILURES as error:
            raise self._failure(error) from error
        if tables and not {"about", "items", "vectors"} <= tables:
            self._database.close()
            raise InvalidInput(f"{self._path} is a database of something else: give the name of a new file")

    def __enter__(self) -> "VectorStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._database.close()

    def add(self, kind: str, names: Sequence[str], vectors: Vectors, model: str) -> None:
        """Keep all of the vectors (n, W), as unit vectors, or none of them. A name that is there gets its new vector.

        Args:
            kind: PICTURE or TEXT.
            model: names the model that made them; a store holds vectors of one model and one width.

        Raises:
            InvalidInput: the store holds vectors of another model or width, a vector has no direction, a name is no
                Unicode, or the store cannot be written.
        """
        if not names:
            return
        for name, vector in zip(names, vectors, strict=True):
            _check_direction(vector, f"the vector of {shown(name)}")
        wanted = {"model": model, "width": str(vectors.shape[1])}
        try:
            with self._alone():
                held = self._about()
                if not held:
                    self._database.execute(TABLES.format(width=vectors.shape[1]))
                    self._database.executemany("INSERT INTO about VALUES (?, ?)", wanted.items())
                elif held != wanted:
                    raise InvalidInput(
                        f"{self._path} holds vectors of {held['width']} values of model {held['model']}, these have "
                        f"{wanted['width']} of model {model}: give the name of another file"
                    )
                for name, vector in zip(names, unit(vectors), strict=True):
                    self._put(kind, name, vector)
        except FAILURES as error:
            raise self._failure(error) from error

    def names(self, kind: str = PICTURE) -> list[str]:
        """The names of one kind, in order of arrival."""
        return [name for (name,) in self._rows("SELECT name FROM items WHERE kind = ? ORDER BY id", (kind,))]

    def nearest(self, vector: Vectors, num_best: int = 5, kind: str = PICTURE) -> list[tuple[str, float]]:
        """The names nearest to a vector (W,) and their cosines, best first.

        Raises:
            InvalidInput: the vector has another width or no direction, or num_best is not from 1 to 4,096.
        """
        if not 1 <= num_best <= MOST:
            raise InvalidInput(f"num_best is {num_best}, 1 to {MOST} are allowed")
        held = self._about()
        if not held:
            return []
        if str(vector.size) != held["width"]:
            raise InvalidInput(f"the vector has {vector.size} values, those of {self._path} have {held['width']}")
        _check_direction(vector, "the vector")
        found = self._rows(
            "SELECT name, distance FROM vectors JOIN items ON items.id = vectors.rowid"
            " WHERE embedding MATCH ? AND k = ? AND vectors.kind = ? ORDER BY distance",
            (_bytes(vector), num_best, kind),
        )
        return [(name, 1 - distance) for name, distance in found if distance is not None]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A transaction that is the only writer from its beginning; an error takes all of it back."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _put(self, kind: str, name: str, vector: Vectors) -> None:
        self._database.execute("INSERT OR IGNORE INTO items (kind, name) VALUES (?, ?)", (kind, name))
        ((place,),) = self._rows("SELECT id FROM items WHERE kind = ? AND name = ?", (kind, name))
        self._database.execute("DELETE FROM vectors WHERE rowid = ?", (place,))
        self._database.execute(
            "INSERT INTO vectors (rowid, embedding, kind) VALUES (?, ?, ?)", (place, _bytes(vector), kind)
        )

    def _about(self) -> dict[str, str]:
        is_begun = self._rows("SELECT name FROM sqlite_master WHERE name = 'about'")
        if not is_begun:
            return {}
        held = dict(self._rows("SELECT key, value FROM about"))
        if not {"model", "width"} <= held.keys():
            raise InvalidInput(f"{self._path} is a database of something else: give the name of a new file")
        return held

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return list(self._database.execute(query, values))
        except FAILURES as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> InvalidInput:
        return InvalidInput(f"{self._path} cannot be used as a vector store: {error}")


def _check_direction(vector: Vectors, what: str) -> None:
    """Refuse a vector that has no cosine: SQLite would keep it, and find it before all others."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not SHORTEST <= length <= LONGEST:
        raise InvalidInput(f"{what} has the length {length:g}, {SHORTEST:g} to {LONGEST:g} is expected: leave it out")


def _bytes(vector: Vectors) -> bytes:
    return np.ascontiguousarray(vector, "<f4").tobytes()
