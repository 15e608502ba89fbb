"""manifest.json of an edge bundle: everything that the device knows about its model, and the hash of every file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from contract.card import ModelCard
from contract.codecs.numbers import NAME as CODEC_NUMBERS
from contract.errors import BundleError, shown
from contract.files import DIGEST, check_named, digest, is_plain_name, read_text, verify
from contract.preprocessing import ImageProcessing, VideoProcessing
from contract.static_graph import WEIGHTS as STATIC_WEIGHTS
from contract.static_graph import StaticGraph
from contract.typed import AGAIN, Size, read

FORMAT_VERSION = 2  # 1 had graphs of normalised pixels
NAME = "manifest.json"
GRAPH, WEIGHTS, TOKENIZER, CHAT_TEMPLATE = "vision.onnx", "vision.onnx.data", "tokenizer.json", "chat_template.jinja"
NEWLINE = "image_newline.npy"  # only in bundles of families that have one
OPENED = (WEIGHTS, NEWLINE, CODEC_NUMBERS, STATIC_WEIGHTS)  # where they lie in the folder
INTEGERS = ("int8", "int4")  # precisions whose layers multiply integers
PRECISIONS = ("fp32", "fp16", "bf16", *INTEGERS)


class Listed(Protocol):
    """What every manifest has."""

    @property
    def files(self) -> dict[str, str]: ...

    @property
    def precision(self) -> str: ...


M = TypeVar("M", bound=Listed)


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds. `parity` has one row per grid and output, as the export measured it. `quantisation` says of
    an integer precision which pictures calibrated it and which layers stayed in fp16; it is empty for the others.

    `special_tokens` are the tokenizer's by name (`eos_token`, ...), as chat templates read them; `gates` has one row
    for each kind of input that the export compared with transformers. Older bundles lack both. `adapter` names the
    adapter that the export merged into the weights; the file has no such key where it merged none. `static` names the graphs
    of one picture size each; the file has no such key where there are none. `files` gives each file's digest, as contract.files.digest
    makes it, or in older bundles its SHA-256.
    """

    card: ModelCard
    image: ImageProcessing
    video: VideoProcessing
    has_outer_video_wrapper: bool
    precision: str
    opset: Size
    graph_version: Size
    libraries: dict[str, str]
    parity: list[dict[str, Any]]
    quantisation: dict[str, Any] = field(default_factory=dict)
    special_tokens: dict[str, str] = field(default_factory=dict)
    gates: list[dict[str, Any]] = field(default_factory=list)
    adapter: dict[str, Any] = field(default_factory=dict)
    static: list[StaticGraph] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def write(self, folder: Path) -> "Manifest":
        """Hash the files of `folder` and write the manifest beside them; returns the manifest as written."""
        values = plain(self) | {"files": digests(folder, but=NAME)}
        (folder / NAME).write_text(json.dumps(values, indent=2) + "\n")
        return _parse(values, folder / NAME)


def plain(value: Any) -> dict[str, Any]:
    """A manifest or card as JSON objects. Tiles, tokens_per_second, adapter and static have no key where there are
    none."""
    values = asdict(value)
    tiles = (value.card if isinstance(value, Manifest) else value).tiles
    for name in ("adapter", "static"):
        if not values.get(name, True):
            del values[name]
    card = values.get("card", values)
    if tiles is None:
        del card["tiles"]
    else:
        card["tiles"] = tiles.facts()
    if card.get("tokens_per_second", ...) is None:
        del card["tokens_per_second"]
    return values


def digests(folder: Path, but: str) -> dict[str, str]:
    """The digest of every file in a folder, except the one named `but`, in the order of their names."""
    return {path.name: digest(path) for path in sorted(folder.iterdir()) if path.name != but}


def read_json(path: Path, noun: str, maker: str) -> Any:
    """The JSON value of a file that an export wrote.

    Args:
        noun: what a folder with this file is.
        maker: the module that writes such folders.

    Raises:
        BundleError: the file is missing, cannot be read, or is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except FileNotFoundError as error:
        raise BundleError(f"{path} does not exist: {path.parent} is no {noun} (python -m {maker} makes one)") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is no JSON: {error}: {AGAIN}") from error


def check_version(values: Any, path: Path, expected: int) -> None:
    """Compare the format version that a file names with the one that this version reads.

    Raises:
        BundleError: it is another, or `values` is no object.
    """
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != expected:
        raise BundleError(f"{path}: format_version is {shown(version)}, this version reads {expected}: {AGAIN}")


def parse(kind: type[M], values: Any, path: Path, format_version: int, needed: Sequence[str]) -> M:
    """A manifest, Manifest or another with `files` and `precision`, from the JSON value of its file.

    Args:
        format_version: the one that this version reads.
        needed: the files without which there is no bundle.

    Raises:
        BundleError: it has another format version, a key is missing or unknown, or a value is wrong.
    """
    check_version(values, path, format_version)
    found = read(kind, values, str(path))
    for name in needed:
        if name not in found.files:
            raise BundleError(f"{path}: files has no {name!r}: {AGAIN}")
    for name, told in found.files.items():
        if not is_plain_name(name) or name == path.name:
            raise BundleError(f"{path}: files names {shown(name)}, only files of the bundle itself are allowed")
        if not DIGEST.fullmatch(told):
            raise BundleError(
                f"{path}: files: {name} is {shown(told)}, expected are blake3: and 64 hex digits, or the 64 of a SHA-256"
            )
    if found.precision not in PRECISIONS:
        raise BundleError(f"{path}: precision is {shown(found.precision)}, supported are {', '.join(PRECISIONS)}")
    return found


def read_manifest(folder: Path) -> Manifest:
    """Read and verify a bundle: format, keys, and the digest of every file.

    Raises:
        BundleError: the manifest is missing, unreadable or incomplete, or has another format version; a file is missing
            or changed, or lies there without a digest.
    """
    manifest = parse_manifest(folder)
    check_named(folder, manifest.files, OPENED)
    verify(folder, manifest.files)
    return manifest


def parse_manifest(folder: Path) -> Manifest:
    """Read a manifest; it does not look at the files that the manifest names.

    Raises:
        BundleError: it is missing, unreadable or incomplete, or has another format version or a wrong value.
    """
    return _parse(read_json(folder / NAME, "edge bundle", "export.vision"), folder / NAME)


def _parse(values: Any, path: Path) -> Manifest:
    manifest = parse(Manifest, values, path, FORMAT_VERSION, (GRAPH, TOKENIZER, CHAT_TEMPLATE))
    for graph in manifest.static:
        if graph.file not in manifest.files:
            raise BundleError(f"{path}: static names {shown(graph.file)}, and files does not: {AGAIN}")
    return manifest
