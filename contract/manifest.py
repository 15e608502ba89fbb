"""manifest.json of an edge bundle: everything the device knows about its model, and the hash of every file."""

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from contract.card import ModelCard
from contract.errors import BundleError
from contract.files import sha256, verify
from contract.preprocessing import ImageProcessing, VideoProcessing
from contract.tiles import Tiles

FORMAT_VERSION = 2  # 1 had graphs of normalised pixels
NAME = "manifest.json"
GRAPH, WEIGHTS, TOKENIZER, CHAT_TEMPLATE = "vision.onnx", "vision.onnx.data", "tokenizer.json", "chat_template.jinja"
NEWLINE = "image_newline.npy"  # only of families that have one
INTEGERS = ("int8", "int4")  # precisions whose layers are multiplied in integers
PRECISIONS = ("fp32", "fp16", "bf16", *INTEGERS)


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds. `parity` has one row per grid and output, as the export measured it; `quantisation` says of
    an integer precision what it was calibrated on and which layers stayed in fp16, and is empty for the others.

    `special_tokens` are the tokenizer's by name (`eos_token`, ...), as chat templates read them; `gates` has one row for
    each kind of input that the export compared with transformers. Bundles made before lack both.
    """

    card: ModelCard
    image: ImageProcessing
    video: VideoProcessing
    has_outer_video_wrapper: bool
    precision: str
    opset: int
    graph_version: int
    libraries: dict[str, str]
    parity: list[dict[str, Any]]
    quantisation: dict[str, Any] = field(default_factory=dict)
    special_tokens: dict[str, str] = field(default_factory=dict)
    gates: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def write(self, folder: Path) -> "Manifest":
        """Hash the files of `folder` and write the manifest beside them; returns the manifest as written."""
        names = sorted(path.name for path in folder.iterdir() if path.name != NAME)
        values = plain(self) | {"files": {name: sha256(folder / name) for name in names}}
        (folder / NAME).write_text(json.dumps(values, indent=2) + "\n")
        return _parse(values, folder / NAME)


def plain(value: Any) -> dict[str, Any]:
    """A manifest or card as JSON objects; a card without tiles has no key for them."""
    values = asdict(value)
    tiles = (value.card if isinstance(value, Manifest) else value).tiles
    card = values.get("card", values)
    if tiles is None:
        del card["tiles"]
    else:
        card["tiles"] = tiles.facts()
    return values


def read_card(values: Any, source: str) -> ModelCard:
    """A card of JSON.

    Raises:
        BundleError: a key is missing or unknown, or the family is.
    """
    if isinstance(values, dict) and "tiles" in values:
        values = values | {"tiles": Tiles.from_json(values["tiles"], f"{source}.tiles")}
    card: ModelCard = _build(ModelCard, values, source)
    return card


def _build(cls: type[Any], values: Any, source: str) -> Any:
    if not isinstance(values, dict):
        raise BundleError(f"{source} is {type(values).__name__}, an object is expected")
    names = {f.name for f in fields(cls)}
    required = {f.name for f in fields(cls) if f.default is f.default_factory is MISSING}
    if missing := required - values.keys():
        raise BundleError(f"{source} has no key {sorted(missing)[0]!r}: export the bundle again")
    if unknown := values.keys() - names:
        raise BundleError(f"{source} has an unknown key {sorted(unknown)[0]!r}: written by a newer version?")
    return cls(**{k: tuple(v) if k in ("mean", "std") else v for k, v in values.items()})


def _parse(values: Any, path: Path) -> Manifest:
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version is {version!r}, this version reads {FORMAT_VERSION}: export the bundle again"
        )
    parts = {"image": ImageProcessing, "video": VideoProcessing}
    built = {k: _build(cls, values.get(k), f"{path}: {k}") for k, cls in parts.items()}
    built["card"] = read_card(values.get("card"), f"{path}: card")
    manifest: Manifest = _build(Manifest, values | built, str(path))
    for name in (GRAPH, TOKENIZER, CHAT_TEMPLATE):
        if name not in manifest.files:
            raise BundleError(f"{path}: files has no {name!r}: export the bundle again")
    if any("/" in name or name in ("..", NAME) for name in manifest.files):
        raise BundleError(f"{path}: files may only name files of the bundle itself")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read and verify a bundle: format, keys, and the SHA-256 of every file.

    Raises:
        BundleError: the manifest is missing, unreadable, of another format version or incomplete; a file is missing
            or changed.
    """
    manifest = parse_manifest(folder)
    verify(folder, manifest.files)
    return manifest


def parse_manifest(folder: Path) -> Manifest:
    """Read a manifest, without looking at the files it names.

    Raises:
        BundleError: it is missing, unreadable, of another format version, incomplete, or has a wrong value.
    """
    path = folder / NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} does not exist: {folder} is no edge bundle (python -m export.vision makes one)"
        ) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is no JSON: {error}") from error
    return _parse(values, path)
