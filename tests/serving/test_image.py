"""The images' recipes, read as Docker reads them: what they copy exists and is enough, what they start parses its arguments."""

import ast
import importlib.util
import json
import re
import shlex
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_runtime.__main__ import _parser as edge_parser
from serving.__main__ import _options as serving_parser
from serving.triton.build import EXIT_TIMEOUT_SECONDS, IMAGE, Ports

ROOT = Path(__file__).parents[2]
PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")}
ACCEPTED = {"FROM", "RUN", "WORKDIR", "ENV", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


class Recipe:
    """A Dockerfile's instructions in order, with their lines joined."""

    def __init__(self, name: str) -> None:
        text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
        self.steps = [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]

    def all(self, word: str) -> list[str]:
        return [rest for found, rest in self.steps if found == word]

    def one(self, word: str) -> str:
        (rest,) = self.all(word)
        return rest

    def copied(self) -> list[str]:
        return [source for rest in self.all("COPY") for source in rest.split()[:-1]]

    def environment(self) -> dict[str, str]:
        return dict(word.split("=", 1) for rest in self.all("ENV") for word in shlex.split(rest))


RECIPES = {name: Recipe(name) for name in ("Dockerfile.triton", "Dockerfile.edge")}
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_copied_exists_and_reaches_the_build(name: Any) -> None:
    recipe = RECIPES[name]
    assert {word for word, _ in recipe.steps} <= ACCEPTED
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in recipe.copied():
        assert (ROOT / source).exists(), source
        assert source in kept


@pytest.mark.parametrize("name", RECIPES)
def test_the_packages_of_an_image_import_no_other(name: Any) -> None:
    copied = {source for source in RECIPES[name].copied() if source in PACKAGES}
    files = [path for package in copied for path in (ROOT / package).rglob("*.py")]
    assert files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            ours = {found.split(".")[0] for found in names} & PACKAGES
            assert ours <= copied, path


@pytest.mark.parametrize(
    ("name", "extras"), [("Dockerfile.triton", {"server"}), ("Dockerfile.edge", {"serve", "video"})]
)
def test_it_installs_what_make_setup_installs(name: str, extras: Any) -> None:
    """The same files with the same constraints; what an extra means stands in pyproject.toml alone."""
    (install,) = [line for line in RECIPES[name].all("RUN") if "--editable" in line]
    words = shlex.split(install)
    assert words[words.index("-c") + 1] == "constraints.txt"
    assert "-c constraints.txt -e '.[dev]'" in (ROOT / "Makefile").read_text()
    (wanted,) = re.findall(r"\.\[([a-z,]+)\]", words[words.index("--editable") + 1])
    assert set(wanted.split(",")) == extras
    assert extras <= set(metadata("edge-vlm").get_all("Provides-Extra"))


@pytest.mark.parametrize("name", RECIPES)
def test_it_builds_the_kernels_that_no_checkout_carries(name: str) -> None:
    """With the compiler of constraints.txt, which does not stay; every import of the build is Python's own."""
    steps = RECIPES[name].steps
    (built,) = [i for i, (word, rest) in enumerate(steps) if word == "RUN" and "-m kernels.build" in rest]
    assert ("COPY", "kernels kernels") in steps[:built]
    assert ("COPY", "edge_runtime edge_runtime") in steps[:built]  # the libraries' folder is in it
    order = [
        steps[built][1].index(word)
        for word in ("-c constraints.txt ziglang", "kernels.build", "uninstall --yes ziglang")
    ]
    assert order == sorted(order)
    assert "ziglang==" in (ROOT / "constraints.txt").read_text()
    tree = ast.parse((ROOT / "kernels" / "build.py").read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {found.split(".")[0] for found in names} <= sys.stdlib_module_names


@pytest.mark.parametrize("name", RECIPES)
def test_it_runs_as_nobody_special(name: Any) -> None:
    words = [word for word, _ in RECIPES[name].steps]
    user, group = RECIPES[name].one("USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("RUN", "COPY"))


def test_the_base_is_pinned_once() -> None:
    assert RECIPES["Dockerfile.triton"].one("FROM") == f"nvcr.io/nvidia/tritonserver:{IMAGE.release}-py3"
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", RECIPES["Dockerfile.edge"].one("FROM"))


def test_the_server_starts_with_what_its_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES["Dockerfile.triton"]
    for name, value in recipe.environment().items():
        if name.startswith("EDGE_VLM_"):
            monkeypatch.setenv(name, value)
    line = json.loads(recipe.one("ENTRYPOINT"))
    assert line[:3] == ["python", "-m", "serving"]
    options = serving_parser().parse_args(line[3:])
    assert (str(options.model), options.engine) == ("/models/language", "transformers")
    assert (str(options.triton), options.host) == ("/opt/tritonserver", "0.0.0.0")
    ports = Ports(options.http_port, options.grpc_port, options.metrics_port)
    assert ports == Ports()
    assert recipe.one("EXPOSE").split() == [str(ports.http), str(ports.grpc), str(ports.metrics)]


def test_the_health_checks_start() -> None:
    check = json.loads(RECIPES["Dockerfile.triton"].one("HEALTHCHECK").partition("CMD ")[2])
    assert check == ["python", "-m", "serving.health"]
    assert importlib.util.find_spec("serving.health") is not None
    code = json.loads(RECIPES["Dockerfile.edge"].one("HEALTHCHECK").partition("CMD ")[2])
    assert code[:2] == ["python", "-c"]
    compile(code[2], "check", "exec")
    assert f"http://127.0.0.1:{RECIPES['Dockerfile.edge'].one('EXPOSE')}/health" in code[2]
    assert '"/health"' in (ROOT / "edge_runtime" / "gateway" / "shell.py").read_text()


def test_every_variable_is_read_and_documented() -> None:
    code = "".join(path.read_text() for folder in PACKAGES - {"tests"} for path in (ROOT / folder).rglob("*.py"))
    given = {name for recipe in RECIPES.values() for name in recipe.environment()}
    given |= {name for service in COMPOSE.values() for name in service["environment"]}
    ours = {name for name in given if name.startswith("EDGE_VLM_")}
    assert ours == {f"EDGE_VLM_{name}" for name in ("MODEL", "ENGINE", "BUNDLE", "TRITON", "API_KEY")}
    readme = (ROOT / "docs/server.md").read_text()
    for name in ours:
        assert f'"{name}"' in code, name
        assert name in readme, name


def test_compose_fits_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    triton, gateway = COMPOSE["triton"], COMPOSE["gateway"]
    for service in (triton, gateway):
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert service["read_only"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert triton["environment"] == {
        name: value
        for name, value in RECIPES["Dockerfile.triton"].environment().items()
        if name.startswith("EDGE_VLM_")
    }
    assert triton["volumes"][0].endswith(f":{triton['environment']['EDGE_VLM_MODEL']}:ro")
    assert gateway["volumes"][0].endswith(f":{gateway['environment']['EDGE_VLM_BUNDLE']}:ro")
    assert [port.rsplit(":", 1)[1] for port in triton["ports"]] == RECIPES["Dockerfile.triton"].one("EXPOSE").split()
    assert int(triton["stop_grace_period"].removesuffix("s")) > EXIT_TIMEOUT_SECONDS + 4  # the guardian's own patience
    assert gateway["depends_on"]["triton"]["condition"] == "service_healthy"
    for name, value in gateway["environment"].items():
        monkeypatch.setenv(name, value)
    assert json.loads(RECIPES["Dockerfile.edge"].one("ENTRYPOINT")) == ["python", "-m", "edge_runtime"]
    args = edge_parser().parse_args(gateway["command"])
    assert (args.triton, args.bundle) == (f"triton:{Ports().grpc}", "/models/bundle")
    assert gateway["ports"] == [f"127.0.0.1:{args.port}:{args.port}"]
    assert edge_parser().parse_args(json.loads(RECIPES["Dockerfile.edge"].one("CMD"))).port == args.port
