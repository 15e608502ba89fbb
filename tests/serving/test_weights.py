"""Weights that cannot be read are found by their headers: one typed error that names the file, whatever the damage."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.errors import BundleError
from serving.weights import INDEX, check_weights
from tests.serving.reference import Reference


@pytest.fixture
def folder(reference: Reference, tmp_path: Path) -> Any:
    shutil.copytree(reference.language, tmp_path / "model")
    return tmp_path / "model"


def header_of(data: Any) -> Any:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: Any, data: Any) -> Any:
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return len(text).to_bytes(8, "little") + text + data


def test_whole_weights_pass(folder: Path) -> None:
    check_weights(folder)


@pytest.mark.parametrize("num_layers", [3, 10**6, 10**30])
def test_layers_without_weights_are_counted(folder: Path, num_layers: int) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    held = config["text_config"]["num_hidden_layers"]
    config["text_config"]["num_hidden_layers"] = held + num_layers
    path.write_text(json.dumps(config))
    with pytest.raises(BundleError, match=rf"num_hidden_layers is {held + num_layers}, the weights have {held} layers"):
        check_weights(folder)


def changed(entry: Any) -> Any:
    """A change of one tensor's entry in the header."""

    def change(data: Any) -> Any:
        header, rest = header_of(data)
        name = next(name for name in header if name != "__metadata__")
        header[name] = entry if not isinstance(entry, dict) else header[name] | entry
        return with_header(header, rest)

    return change


DAMAGE = {
    "empty": lambda data: b"",
    "seven bytes": lambda data: data[:7],
    "a header beyond the file": lambda data: (1 << 62).to_bytes(8, "little") + data[8:],
    "cut short": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "no JSON": lambda data: with_header(b"{", b""),
    "deep": lambda data: with_header(b"[" * 100_000, b""),
    "no object": lambda data: with_header(b"[1]", b""),
    "no UTF-8": lambda data: with_header(b'{"\xff": 1}', b""),
    "an entry that is none": changed(3),
    "negative offsets": changed({"data_offsets": [-4, 4]}),
    "offsets beyond the file": changed({"data_offsets": [0, 1 << 50]}),
    "offsets the wrong way": changed({"data_offsets": [8, 0]}),
    "a fractional side": changed({"shape": [1.5]}),
    "a true side": changed({"shape": [True]}),
    "a side too large": changed({"shape": [1 << 64]}),
    "another shape": changed({"shape": [1]}),
    "a type that is none": changed({"dtype": 3}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_typed_error(folder: Path, damage: Any) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(BundleError, match=r"model\.safetensors .*copy the checkpoint again"):
        check_weights(folder)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), new=st.binary(max_size=40))
def test_any_bytes_in_the_header(folder: Path, cut: Any, new: Any) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:cut] + new + whole[cut + len(new) :])
    try:
        with contextlib.suppress(BundleError):
            check_weights(folder)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[]",
        '{"weight_map": 3}',
        '{"weight_map": {"a": 3}}',
        *(
            json.dumps({"weight_map": {"a": name}})
            for name in (
                "../model/model.safetensors",
                "/etc/hostname",
                "a/b",
                "..",
                ".",
                "",
                "x\0",
                "x" * 300,
                "gone.safetensors",
            )
        ),
    ],
)
def test_an_index_names_files_beside_it(folder: Path, index: Any) -> None:
    (folder / INDEX).write_text(index)
    with pytest.raises(BundleError):
        check_weights(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(BundleError, match="has no"):
        check_weights(folder)
