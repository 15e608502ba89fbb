"""Traits of the tree itself: who imports what, what the public face shows."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomllib

import contract.errors
import edge_runtime

ROOT = Path(__file__).parent.parent


def imported(path: Path) -> set[str]:
    """Top-level names of the modules a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_model_files_import_serving_contract_and_tritons_helper() -> None:
    """import-linter cannot see the repository: a version folder named 1 is no package."""
    files = sorted((ROOT / "triton_models").glob("*/*/model.py"))
    assert [f.parts[-3] for f in files] == ["alias", "edge_vlm", "edge_vlm_unary", "edge_vlm_vision"]
    for path in files:
        assert not imported(path) & {"edge_runtime", "export", "tiny_model", "torch", "transformers"}, path
        assert "triton_python_backend_utils" in imported(path)


def test_only_model_files_import_tritons_helper() -> None:
    for folder in ("contract", "edge_runtime", "export", "serving", "tiny_model"):
        for path in (ROOT / folder).rglob("*.py"):
            assert "triton_python_backend_utils" not in imported(path), path


def test_the_edge_imports_nothing_heavy() -> None:
    for folder in ("contract", "edge_runtime"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not imported(path) & {"torch", "transformers", "torchvision", "onnx"}, path


def test_the_public_face() -> None:
    assert edge_runtime.__all__ == sorted(edge_runtime.__all__)
    assert edge_runtime.Message == dict[str, Any]
    for name in {*edge_runtime.__all__} - {"Message"}:
        assert getattr(edge_runtime, name).__module__.split(".")[0] in ("edge_runtime", "contract")


def test_every_error_that_a_device_meets_is_on_the_face() -> None:
    """ParityError is raised by an export alone."""
    errors = {name for name, kind in vars(contract.errors).items() if isinstance(kind, type)}
    assert errors - {"ParityError"} <= {*edge_runtime.__all__}


def test_packages_say_that_they_are_typed() -> None:
    for folder in ("contract", "edge_runtime", "export", "serving", "triton_models"):
        assert (ROOT / folder / "py.typed").is_file(), folder


def test_the_version_is_written_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "edge_runtime.__version__"}


def test_nothing_is_pickled() -> None:
    """No pickle and no torch.load where tensors or bundles arrive."""
    for folder in ("contract", "edge_runtime", "export", "serving", "triton_models"):
        for path in (ROOT / folder).rglob("*.py"):
            assert "pickle" not in imported(path), path
            assert "torch.load" not in path.read_text(), path


def test_a_word_means_one_thing() -> None:
    """Each of these names a class of one package only; a second meaning has a name of its own."""
    words = ("Tower", "Source", "Request", "Piece", "Progress", "Clip")
    for word in words:
        places = [
            path.relative_to(ROOT).as_posix()
            for folder in ("contract", "edge_runtime", "export", "serving", "triton_models", "kernels", "tiny_model")
            for path in (ROOT / folder).rglob("*.py")
            if re.search(rf"^(class {word}\b|{word} = )", path.read_text(), re.MULTILINE)
        ]
        assert len(places) <= 1, f"{word}: {places}"


FAMILY = re.compile(r"qwen|llava|internvl|internvit|siglip|smolvlm|clip_vision", re.IGNORECASE)
ALLOWED = {  # what is no family: names of services, and of a package whose options are ours
    "contract/names.py": {'"qwen3_vl"', '"qwen3_vl_unary"', '"qwen3_vl_vision"'},
    "edge_runtime/commands/media.py": {'"which frames are looked at, and how large; names as in qwen-vl-utils"'},
}


def code_words(path: Path) -> Iterator[str]:
    """The names and strings of a file, without comments and docstrings."""
    source = path.read_text()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr):
            docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NAME, tokenize.STRING) and token.start[0] not in docstrings:
            yield token.string


def test_only_families_name_a_family() -> None:
    """A family is one module a side; shared code finds it by model_type and never asks which one it is."""
    for folder in ("contract", "edge_runtime", "export", "serving", "triton_models"):
        for path in (ROOT / folder).rglob("*.py"):
            place = path.relative_to(ROOT).as_posix()
            if "/families/" in place:
                continue
            named = {word for word in code_words(path) if FAMILY.search(word)} - ALLOWED.get(place, set())
            assert not named, f"{place} names a family: {sorted(named)}"
            assert not re.search(r"model_type[\"'\]]* *==", path.read_text()), place
