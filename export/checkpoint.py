"""A transformers checkpoint folder: its small files, and its tensors one at a time.

Nothing here loads a model. A tensor is read when it is asked for and dropped afterwards, so a 30B checkpoint needs the
memory of its largest tensor. Both exports compute the fingerprint here, from the bytes as stored.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.card import FAMILIES, ModelCard
from contract.errors import BundleError
from contract.fingerprint import encoder_fingerprint
from contract.language import NAME as LANGUAGE_MARK
from contract.preprocessing import ImageProcessing, VideoProcessing, image_processing, video_processing
from export.hub import INDEX, SINGLE
from export.shards import Stored

PREFIXES = ("model.visual.", "visual.")
HAS_OUTER_VIDEO_WRAPPER = True  # transformers >= 5.10 keeps vision_start .. vision_end around all frames of a video
FLOAT_TYPES = ("BF16", "F16", "F32", "F64")


def tower_name(name: str) -> str | None:
    """The tower-local name of a tensor: `model.visual.merger.norm.bias` is `merger.norm.bias`; None outside the tower."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return None


@dataclass(frozen=True)
class Checkpoint:
    """One folder. Every method raises BundleError where a file or tensor is missing, damaged or of the wrong kind."""

    folder: Path

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object of the folder."""
        path = self.folder / name
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise BundleError(f"{path} does not exist: is this a complete Qwen3-VL checkpoint?") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise BundleError(f"{path} is no JSON: {error}") from error
        if not isinstance(values, dict):
            raise BundleError(f"{path} is {type(values).__name__}, an object is expected")
        return values

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json of a supported family."""
        config = self.json("config.json")
        if (family := config.get("model_type")) not in FAMILIES:
            raise BundleError(f"model_type is {family!r}, supported are {', '.join(FAMILIES)}")
        return config

    @cached_property
    def image(self) -> ImageProcessing:
        return image_processing(self._processor("preprocessor_config.json"))

    @cached_property
    def video(self) -> VideoProcessing:
        return video_processing(self._processor("video_preprocessor_config.json"))

    def _processor(self, name: str) -> dict[str, Any]:
        processor, vision = self.json(name), self.config.get("vision_config", {})
        pairs = (("patch_size", "patch_size"), ("temporal_patch_size",) * 2, ("merge_size", "spatial_merge_size"))
        for ours, theirs in pairs:
            if processor.get(ours) != vision.get(theirs):
                raise BundleError(
                    f"{name}: {ours} is {processor.get(ours)}, vision_config.{theirs} is {vision.get(theirs)}: "
                    "they must be equal"
                )
        return processor

    @cached_property
    def chat_template(self) -> str:
        """From chat_template.jinja, or from the two JSON files older checkpoints keep it in."""
        if (path := self.folder / "chat_template.jinja").is_file():
            return path.read_text(encoding="utf-8")
        for name in ("chat_template.json", "tokenizer_config.json"):
            template = self.json(name).get("chat_template") if (self.folder / name).is_file() else None
            if isinstance(template, list):  # several named ones
                template = {entry.get("name"): entry.get("template") for entry in template}.get("default")
            if isinstance(template, str):
                return template
        raise BundleError(
            f"{self.folder} has no chat template: chat_template.jinja, or chat_template in chat_template.json or "
            "tokenizer_config.json"
        )

    @cached_property
    def shards(self) -> dict[str, list[str]]:
        """The safetensors files and the names each holds, in stored order."""
        if (self.folder / INDEX).is_file():
            places = self.json(INDEX).get("weight_map")
            if not isinstance(places, dict) or not places:
                raise BundleError(f"{self.folder / INDEX} has no weight_map")
            files = sorted(set(map(str, places.values())))
            if outside := [file for file in files if Path(file).name != file]:
                raise BundleError(f"{self.folder / INDEX} names {outside[0]!r}: only files of the folder are allowed")
        elif (self.folder / SINGLE).is_file():
            places, files = None, [SINGLE]
        else:
            raise BundleError(f"{self.folder} has neither {SINGLE} nor {INDEX}")
        shards = {}
        for file in files:
            if not (self.folder / file).is_file() and places is not None:
                shards[file] = [name for name, place in places.items() if place == file]  # left out by hub.local_folder
                continue
            shards[file] = list(self._open(file).offset_keys())
            listed = shards[file] if places is None else [name for name, place in places.items() if place == file]
            if missing := set(listed) - set(shards[file]):
                raise BundleError(f"{self.folder / file} has no tensor {sorted(missing)[0]!r}, {INDEX} says it has")
        return shards

    @cached_property
    def _handles(self) -> dict[str, Any]:
        """Mapped files; kept, because a header of a large checkpoint takes longer to parse than a tensor to read."""
        return {}

    def _open(self, file: str) -> Any:
        if file in self._handles:
            return self._handles[file]
        from safetensors import SafetensorError, safe_open

        path = self.folder / file
        if not path.is_file():
            raise BundleError(f"{path} is missing: {INDEX} names it")
        try:
            return self._handles.setdefault(file, safe_open(path, "pt"))
        except SafetensorError as error:
            raise BundleError(f"{path} is no safetensors file, or cut short: {error}") from error

    @cached_property
    def _tower(self) -> dict[str, tuple[str, str]]:
        """Tower-local name to (file, stored name)."""
        found: dict[str, tuple[str, str]] = {}
        for file, names in self.shards.items():
            for name in names:
                if (local := tower_name(name)) is None:
                    continue
                if local in found:
                    raise BundleError(f"{local} stands twice, as {found[local][1]} and {name}")
                found[local] = (file, name)
        if not found:
            mark = f" ({LANGUAGE_MARK} says so)" if (self.folder / LANGUAGE_MARK).is_file() else ""
            raise BundleError(
                f"{self.folder} has no vision tower: no tensor is named {' or '.join(p + '*' for p in PREFIXES)}. "
                f"This is a language checkpoint already{mark}; export the original checkpoint"
            )
        return found

    @cached_property
    def tower_shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Tower-local name to (stored dtype, shape), headers only."""
        shapes = {}
        for local, (file, name) in self._tower.items():
            part = self._open(file).get_slice(name)
            shapes[local] = (part.get_dtype(), tuple(part.get_shape()))
        return shapes

    def tower_tensor(self, name: str) -> NDArray[np.float32]:
        """One tower tensor by its tower-local name, widened to float32 (exact from bfloat16 and float16)."""
        if name not in self._tower:
            raise BundleError(f"{self.folder} has no tower tensor {name!r}")
        if (dtype := self.tower_shapes[name][0]) not in FLOAT_TYPES:
            raise BundleError(f"tower tensor {name!r} is {dtype}, {', '.join(FLOAT_TYPES)} can be exported")
        file, stored = self._tower[name]
        values: NDArray[np.float32] = self._open(file).get_tensor(stored).float().numpy()
        return values

    def stored_bytes(self, file: str, name: str) -> memoryview:
        """The little-endian bytes of one tensor, as stored; backed by the file's mapping."""
        import torch

        tensor = self._open(file).get_tensor(name).contiguous().reshape(-1)
        return memoryview(tensor.view(torch.uint8).numpy()) if math.prod(tensor.shape) else memoryview(b"")

    def stored(self, file: str, names: list[str]) -> Iterator[Stored]:
        """The tensors `names` of one file, to be copied."""
        for name in names:
            part, read = self._open(file).get_slice(name), partial(self.stored_bytes, file, name)
            yield Stored(name, part.get_dtype(), tuple(part.get_shape()), len(read()), read)

    def metadata(self, file: str) -> dict[str, str] | None:
        """The free-form header of one file; transformers wants its `format`."""
        values: dict[str, str] | None = self._open(file).metadata()
        return values

    def _tower_bytes(self) -> Iterator[tuple[str, str, tuple[int, ...], memoryview]]:
        for local, (file, name) in self._tower.items():
            yield (local, *self.tower_shapes[local], self.stored_bytes(file, name))

    @cached_property
    def fingerprint(self) -> str:
        """The encoder's name: equal for single and sharded files and for both tensor prefixes."""
        return encoder_fingerprint(self._tower_bytes(), self.image, self.video, HAS_OUTER_VIDEO_WRAPPER)

    @cached_property
    def card(self) -> ModelCard:
        return ModelCard.from_config(self.config, self.fingerprint)
