"""A transformers checkpoint folder: its small files, and its tensors one at a time.

Nothing here loads a model or maps a file. `Checkpoint` reads a tensor when the caller asks for it and keeps none, so a
235B checkpoint needs the memory of its largest tensor. Both exports compute the fingerprint here, from the stored
bytes.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contract import families as contract_families
from contract.card import ModelCard
from contract.errors import BundleError
from contract.files import read_text
from contract.fingerprint import encoder_fingerprint
from contract.language import NAME as LANGUAGE_MARK
from contract.preprocessing import ImageProcessing, VideoProcessing
from contract.quantisation import quantisation
from export import families
from export.source.adapter import ADAPTER, ADAPTER_CONFIG, WRAPPED, Adapter
from export.source.hub import INDEX, SINGLE
from export.source.notices import adapter as described
from export.source.processors import Processors
from export.source.shards import ITEM_BYTES, Stored, read_shard
from export.source.template import find_template

if TYPE_CHECKING:
    from export.families.tile_facts import TileFacts

HAS_OUTER_VIDEO_WRAPPER = True  # transformers >= 5.10 keeps vision_start .. vision_end around all frames of a video


@dataclass(frozen=True)
class Checkpoint:
    """One folder, and an adapter, which changes the tensors wherever somebody reads them. Every method raises
    BundleError where a file or tensor is missing, damaged or of the wrong kind."""

    folder: Path
    adapter: Adapter | None = None

    def json(self, name: str) -> dict[str, Any]:
        """The JSON object in the file `name` of the folder."""
        path = self.folder / name
        try:
            values = json.loads(read_text(path))
        except FileNotFoundError as error:
            raise BundleError(f"{path} does not exist: give a complete checkpoint") from error
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}: give a complete checkpoint") from error
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{path} is no JSON: {error}: copy the checkpoint again") from error
        if not isinstance(values, dict):
            raise BundleError(f"{path} is {type(values).__name__}, an object is expected")
        return values

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json of a supported family."""
        if not (self.folder / "config.json").is_file() and (self.folder / ADAPTER_CONFIG).is_file():
            raise self._adapter_alone()
        config = self.json("config.json")
        contract_families.module_name(config.get("model_type"))  # raises where there is none
        return config

    @cached_property
    def family(self) -> families.Family:
        return families.find(self.config["model_type"])

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The config as the family reads it; some families add the defaults of transformers' classes."""
        return self.family.config(self.config, self.folder)

    @cached_property
    def _tile_facts(self) -> "TileFacts | None":
        return self.family.facts_of(self.folder, self.facts)

    def _optional(self, name: str) -> dict[str, Any] | None:
        return self.json(name) if (self.folder / name).is_file() else None

    @cached_property
    def _processors(self) -> Processors:
        return Processors(self._optional, self.facts.get("vision_config", {}), self.family.VIDEO)

    @property
    def image(self) -> ImageProcessing:
        return self._tile_facts.image if self._tile_facts else self._processors.image

    @property
    def video(self) -> VideoProcessing:
        return self._tile_facts.video if self._tile_facts else self._processors.video

    @cached_property
    def chat_template(self) -> str:
        """The template that transformers' processor takes; where it has none, the tokenizer's, as vLLM does."""
        return find_template(self.folder, self._optional)

    @cached_property
    def shards(self) -> dict[str, list[str]]:
        """The safetensors files and the tensor names in each, as the single file or the index gives them.

        transformers takes the single file where both are there; this property refuses an index whose weights differ. It
        opens no file of an index otherwise, so that it finds a tower without the files of the language model.
        """
        if (self.folder / SINGLE).is_file():
            shards = {SINGLE: list(self.tensors(SINGLE))}
            if (self.folder / INDEX).is_file():
                self._compare_with_index()
            return shards
        if not (self.folder / INDEX).is_file():
            if (self.folder / ADAPTER).is_file():
                raise self._adapter_alone()
            raise BundleError(f"{self.folder} has neither {SINGLE} nor {INDEX}: {self._other_weights()}")
        return self._indexed

    def _adapter_alone(self) -> BundleError:
        return BundleError(
            f"{self.folder} is an adapter alone ({described(self.folder)}): give its base model as MODEL and this folder as "
            "--adapter"
        )

    def _other_weights(self) -> str:
        """What to do where the folder has no safetensors."""
        if others := sorted(path.name for path in self.folder.glob("*.bin")):
            return f"it has {others[0]}; save the model again with transformers, which writes safetensors"
        return "give a complete checkpoint"

    def _compare_with_index(self) -> None:
        single, indexed = self.tensors(SINGLE), self._indexed
        if any(not (self.folder / file).is_file() for file in indexed):
            return  # an index that was left behind
        places = {name: file for file, names in indexed.items() for name in names}
        for name in sorted(single.keys() | places.keys()):
            ours = single.get(name)
            theirs = self.tensors(places[name])[name] if name in places else None
            same = ours is not None and theirs is not None and (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            if same and self.family.local_name(name) is not None and ours is not None and theirs is not None:
                same = np.array_equal(ours.read(), theirs.read())
            if not same:
                raise BundleError(
                    f"{self.folder} has {SINGLE} and {INDEX}, and {name!r} differs between them: transformers loads the "
                    "single file. Remove the weights that are not meant"
                )

    @cached_property
    def _indexed(self) -> dict[str, list[str]]:
        """The files of the index and the tensor names in each."""
        places = self.json(INDEX).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise BundleError(f"{self.folder / INDEX} has no weight_map of tensors to files: copy the checkpoint again")
        shards: dict[str, list[str]] = {str(file): [] for file in sorted(set(map(str, places.values())))}
        if outside := [file for file in shards if Path(file).name != file]:
            raise BundleError(f"{self.folder / INDEX} names {outside[0]!r}: only files of the folder are allowed")
        for name, file in places.items():
            shards[str(file)].append(name)
        return shards

    @cached_property
    def _headers(self) -> dict[str, tuple[dict[str, Stored], dict[str, str] | None]]:
        """The headers that `_base` has parsed: to parse a large one takes longer than to read a tensor."""
        return {}

    def _base(self, file: str) -> dict[str, Stored]:
        """The tensors of one file as it stores them."""
        if file not in self._headers:
            tensors, metadata = read_shard(self.folder / file)
            if file != SINGLE and (missing := set(self._indexed[file]) - tensors.keys()):
                raise BundleError(
                    f"{self.folder / file} has no tensor {min(missing)!r}, {INDEX} says it has: copy the checkpoint again"
                )
            self._headers[file] = tensors, metadata
        return self._headers[file][0]

    def tensors(self, file: str) -> dict[str, Stored]:
        """All tensors of one file by name, in stored order, with the adapter's change in them."""
        base = self._base(file)
        return {name: self._merged.get(name, tensor) for name, tensor in base.items()} if self.adapter else base

    @cached_property
    def _merged(self) -> Mapping[str, Stored]:
        """The tensors that the adapter changes. It reads all headers, but only where there is an adapter."""
        if self.adapter is None:
            return {}
        files = [SINGLE] if (self.folder / SINGLE).is_file() else self._indexed
        base = {name: tensor for file in files for name, tensor in self._base(file).items()}
        return self.adapter.merged(base, self._canonical)

    def _canonical(self, name: str) -> str:
        """One spelling of a tensor's name: the tower-local one, else the name without the language model's wrappers."""
        if (local := self.family.local_name(name)) is not None:
            return f"tower:{local}"
        parts = name.split(".")
        while len(parts) > 1 and parts[0] in ("model", "language_model"):
            del parts[0]
        return ".".join(parts)

    @cached_property
    def adapter_facts(self) -> dict[str, Any]:
        """What the manifest keeps of the adapter; empty without one."""
        if self.adapter is None:
            return {}
        return self.adapter.describe(sum(self.family.local_name(name) is not None for name in self._merged))

    def metadata(self, file: str) -> dict[str, str] | None:
        """The free-form header of one file; transformers wants its `format`."""
        self._base(file)
        return self._headers[file][1]

    @cached_property
    def _tower(self) -> dict[str, Stored]:
        """The tower's tensors by tower-local name."""
        found: dict[str, Stored] = {}
        for file, names in self.shards.items():
            for name in names:
                if (local := self.family.local_name(name)) is None:
                    continue
                if local in found:
                    raise BundleError(f"{local} stands twice, as {found[local].name} and {name}: leave one of them out")
                found[local] = self.tensors(file)[name]
        if not found:
            raise BundleError(
                f"{self.folder} has no vision tower: no tensor has the name of one. {self._without_tower()}"
            )
        method = quantisation(self.config)
        if method and (wrong := next((tensor for tensor in found.values() if tensor.dtype not in ITEM_BYTES), None)):
            raise BundleError(
                f"{self.folder} is quantised with {method}, its vision tower too ({wrong.name} is {wrong.dtype}): export a "
                "checkpoint whose tower is not quantised, and choose --precision here"
            )
        return found

    def _without_tower(self) -> str:
        if (self.folder / LANGUAGE_MARK).is_file():
            return f"This is a language checkpoint already ({LANGUAGE_MARK} says so); export the original checkpoint"
        names = [name for names in self.shards.values() for name in names]
        if any(name.startswith(WRAPPED) for name in names):
            return (
                f"Its tensors are named {WRAPPED}*: PEFT saved them with an adapter around the model. Merge it "
                "(merge_and_unload, then save_pretrained) and export that"
            )
        return f"Its first tensor is {min(names, default='none')}; is this a language model alone? Export the original"

    @cached_property
    def tower_shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Tower-local name to (stored dtype, shape); it reads headers only."""
        return {local: (tensor.dtype, tensor.shape) for local, tensor in self._tower.items()}

    def tower_tensor(self, name: str) -> NDArray[np.float32]:
        """One tower tensor by its tower-local name, widened to float32 (exact from bfloat16 and float16)."""
        if name not in self._tower:
            raise BundleError(f"{self.folder} has no tower tensor {name!r}: give a complete checkpoint")
        return self._tower[name].float32()

    def _tower_bytes(self) -> Iterator[tuple[str, str, tuple[int, ...], memoryview]]:
        for local, tensor in self._tower.items():
            yield (local, tensor.dtype, tensor.shape, tensor.read().data)

    @cached_property
    def fingerprint(self) -> str:
        """The encoder's name, 32 hex digits: the same for single and sharded files and for both tensor prefixes."""
        tiles = self._tile_facts.tiles if self._tile_facts else None
        return encoder_fingerprint(self._tower_bytes(), self.image, self.video, HAS_OUTER_VIDEO_WRAPPER, tiles)

    @cached_property
    def card(self) -> ModelCard:
        tiles = self._tile_facts.tiles if self._tile_facts else None
        return contract_families.find(self.config["model_type"]).card(self.facts, self.fingerprint, tiles)
