"""The vector store: real SQLite and sqlite-vec, nearest by cosine as numpy finds them, and nothing lost by a bad call."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from contract.errors import InvalidInput
from edge_runtime.vector_store import MOST, PICTURE, TEXT, VectorStore
from edge_runtime.vectors import cosines

MODEL = "0123"


def vectors(count: int, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def test_the_nearest_are_those_of_numpy(tmp_path: Path) -> None:
    """Of pictures and texts that another call added, in a file that was closed in between."""
    held, texts, asked = vectors(40), vectors(5, seed=1), vectors(1, seed=2)
    names = [f"{place}.png" for place in range(40)]
    for part in (slice(0, 15), slice(15, 40)):
        with VectorStore(tmp_path / "v.db") as store:
            store.add(PICTURE, names[part], held[part], MODEL)
    with VectorStore(tmp_path / "v.db") as store:
        store.add(TEXT, list("abcde"), texts, MODEL)
        found, table = store.nearest(asked[0], 7), cosines(asked, held)[0]
        assert [name for name, _ in found] == [names[place] for place in np.argsort(-table)[:7]]
        assert np.allclose([cosine for _, cosine in found], np.sort(table)[::-1][:7], atol=1e-6)
        assert store.nearest(texts[2], 1, TEXT) == [("c", pytest.approx(1, abs=1e-6))]
        assert len(store.nearest(asked[0], MOST)) == 40
        assert store.names() == names


def test_a_name_keeps_its_newest_vector(tmp_path: Path) -> None:
    with VectorStore(tmp_path / "v.db") as store:
        store.add(PICTURE, ["a", "b"], vectors(2), MODEL)
        store.add(PICTURE, ["a"], vectors(1, seed=5), MODEL)
        assert store.nearest(vectors(1, seed=5)[0], 2)[0] == ("a", pytest.approx(1, abs=1e-6))
        assert sorted(store.names()) == ["a", "b"]


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with VectorStore(tmp_path / "v.db") as store:
        assert store.nearest(vectors(1)[0]) == []
        store.add(PICTURE, ["a"], vectors(1), MODEL)
        with pytest.raises(
            InvalidInput, match="24 values of model 0123, these have 24 of model 9: give the name of an"
        ):
            store.add(PICTURE, ["b"], vectors(1), "9")
        with pytest.raises(InvalidInput, match="24 values of model 0123, these have 8 of model 0123"):
            store.add(PICTURE, ["b"], vectors(1, 8), MODEL)
        with pytest.raises(ValueError, match="shorter"):  # one name too many: the first is not kept either
            store.add(PICTURE, ["b", "c"], vectors(1), MODEL)
        with pytest.raises(InvalidInput, match="the vector has 8 values"):
            store.nearest(vectors(1, 8)[0])
        with pytest.raises(InvalidInput, match="num_best is 0, 1 to 4096"):
            store.nearest(vectors(1)[0], 0)
        assert store.names() == ["a"]


@pytest.mark.parametrize("value", [0, np.nan, np.inf, 1e38, 1e-44])
def test_a_vector_without_direction_spoils_no_search(tmp_path: Path, value: float) -> None:
    """SQLite kept it with a distance of NULL, and from then on no search was answered."""
    spoilt = np.full((1, 24), value, np.float32)
    with VectorStore(tmp_path / "v.db") as store:
        store.add(PICTURE, ["a"], vectors(1), MODEL)
        with pytest.raises(InvalidInput, match=r"the vector of 'b\.png' has the length"):
            store.add(PICTURE, ["b.png"], spoilt, MODEL)
        with pytest.raises(InvalidInput, match="the vector has the length"):
            store.nearest(spoilt[0])
        assert store.nearest(vectors(1)[0]) == [("a", pytest.approx(1, abs=1e-6))]


def test_a_name_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    with VectorStore(tmp_path / "v.db") as store, pytest.raises(InvalidInput, match=r"v\.db cannot .*surrogates"):
        store.add(PICTURE, ["\udcff.png"], vectors(1), MODEL)


def test_tables_of_these_names_with_something_else_in_them(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "v.db") as database:
        database.executescript("CREATE TABLE about (key, value); CREATE TABLE items (x); CREATE TABLE vectors (x);")
        database.execute("INSERT INTO about VALUES ('colour', 'red')")
    with VectorStore(tmp_path / "v.db") as store:
        for use in (lambda: store.add(PICTURE, ["a"], vectors(1), MODEL), lambda: store.nearest(vectors(1)[0])):
            with pytest.raises(InvalidInput, match="something else"):
                use()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at " * 40)
    with pytest.raises(InvalidInput, match=r"text\.db cannot be used as a vector store: .*not a database"):
        VectorStore(tmp_path / "text.db")
    import apsw

    apsw.Connection(str(tmp_path / "other.db")).execute("CREATE TABLE mine (x)")
    with pytest.raises(InvalidInput, match="a database of something else"):
        VectorStore(tmp_path / "other.db")
    with pytest.raises(InvalidInput, match="cannot be used as a vector store"):
        VectorStore(tmp_path / "nowhere" / "v.db")


def test_two_writers_wait_for_each_other(tmp_path: Path) -> None:
    def write(number: int) -> None:
        with VectorStore(tmp_path / "v.db") as store:
            for turn in range(5):
                store.add(PICTURE, [f"{number}.{turn}"], vectors(1, seed=number), MODEL)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with VectorStore(tmp_path / "v.db") as store:
        assert len(store.names()) == 15


def test_without_its_packages_the_extra_is_named() -> None:
    script = "import sys; sys.modules['apsw'] = None\nimport edge_runtime.vector_store"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install 'edge-vlm[search]'" in done.stderr
