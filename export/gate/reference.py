"""transformers' own processor of a checkpoint: the gate compares the device's pictures, clips and prompts with it.

transformers loads everything from the folder: tokenizer, chat template, picture and video processor. Pictures take its
PIL backend, which the device follows. Its video processor computes with torchvision alone, which differs from Pillow by
up to 2 grey levels, and which the export needs for nothing else. Here it computes with Pillow, and transformers' own
code does everything around the filter (frames, sizes, patches, times).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from contract.errors import BundleError

SHOWN = 300  # characters of transformers' message that ours repeats; it may list all that it knows


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block transformers logs errors only: its advice is for people who call it themselves."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def token_ids(reference: Any, text: str, **media: Any) -> list[int]:
    """Ids of a rendered conversation as `apply_chat_template` of transformers' ProcessorMixin tokenises it: a text that
    begins with the start token gets no second one.

    Args:
        media: pictures and videos, under the names of the processor's call.
    """
    start = reference.tokenizer.bos_token
    is_started = start is not None and text.startswith(start)
    inputs = reference(text=[text], **media, add_special_tokens=not is_started, return_tensors="pt")
    return list(inputs["input_ids"][0].tolist())


def load_reference(folder: Path, family: str) -> Any:
    """transformers' processor of the checkpoint in `folder`.

    Args:
        family: model_type of its config.

    Raises:
        BundleError: transformers has no such model, or cannot load the processor.
    """
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as MODELS
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    if family not in MODELS:
        raise BundleError(
            f"transformers has no model of type {family!r} for pictures and text: install a version that has it"
        )
    try:
        processor = _processor_class(PROCESSOR_MAPPING_NAMES[family])
        pictures = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
        parts = (
            pictures,
            AutoTokenizer.from_pretrained(folder, local_files_only=True),
            with_pillow(_video_class(processor, type(pictures))).from_pretrained(folder, local_files_only=True),
        )
        values, _ = processor.get_processor_dict(folder, local_files_only=True)
        return unchecked(processor)(*parts, chat_template=values.get("chat_template"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{folder}: transformers cannot load its processor: {str(error)[:SHOWN]}") from error


def _processor_class(name: str) -> Any:
    """The processor class of this name, from the package of transformers.models that has the same name."""
    from transformers import models

    begin = name.lower().replace("_", "").removesuffix("processor")
    package = next(package for package in dir(models) if package.replace("_", "") == begin)
    return getattr(import_module(f"transformers.models.{package}.processing_{package}"), name)


def _video_class(*owners: Any) -> Any:
    """The class of the video processor, which transformers hides where torchvision is not installed. It comes from the
    package of the first owner that has one.

    Args:
        owners: the processor's class, then the class of its image processor.
    """
    for owner in owners:
        package = owner.__module__.split(".")[2]  # transformers.models.PACKAGE
        with suppress(ModuleNotFoundError), _torchvision_named():
            module = import_module(f"transformers.models.{package}.video_processing_{package}")
            found = [value for key, value in vars(module).items() if key.endswith("VideoProcessor")]
            return next(value for value in found if value.__module__ == module.__name__)
    raise ValueError(f"transformers has no video processor for {owners[0].__name__}")


@contextmanager
def _torchvision_named() -> Iterator[None]:
    """Inside the block code can import `torchvision`, which is empty where it is not installed: a video processor may
    import it for the names of types alone, and with_pillow replaces what it computes."""
    if find_spec("torchvision") is not None:
        yield
        return
    names = [".".join(("torchvision", "transforms", "v2", "functional")[:count]) for count in range(1, 5)]
    modules = [ModuleType(name) for name in names]
    for outer, inner in pairwise(modules):
        outer.__path__ = []
        setattr(outer, inner.__name__.rpartition(".")[2], inner)
    sys.modules.update(zip(names, modules, strict=True))
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def unchecked(processor: type) -> Any:
    """The processor class without the check of its parts' classes, which looks for them in torchvision."""

    class Reference(processor):  # type: ignore[misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> type:
            return type(argument)

    return Reference


def with_pillow(videos: type) -> Any:
    """The video processor class, with Pillow and numpy where transformers calls torchvision."""
    import torch
    from transformers.video_processing_utils import BaseVideoProcessor

    class Filters(BaseVideoProcessor):  # type: ignore[misc]
        def convert_to_rgb(self, video: Any) -> Any:
            return video  # the gate's clips are RGB

        def resize(self, image: Any, size: Any, resample: Any = None, **_: Any) -> Any:
            frames = image.reshape(-1, *image.shape[-3:]).permute(0, 2, 3, 1).numpy()  # (n, H, W, 3)
            if frames.shape[1:3] != (size.height, size.width):
                where = (size.width, size.height)
                resized = [
                    np.asarray(Image.fromarray(frame).resize(where, Image.Resampling(resample))) for frame in frames
                ]
                frames = np.stack(resized)
            return torch.from_numpy(frames).permute(0, 3, 1, 2).reshape(*image.shape[:-2], size.height, size.width)

        def normalize(self, image: Any, mean: Any, std: Any, *_: Any, **__: Any) -> Any:
            means, stds = (torch.as_tensor(value, dtype=torch.float32).reshape(-1, 1, 1) for value in (mean, std))
            return (image - means) / stds

    class WithPillow(videos, Filters):  # type: ignore[misc]
        pass

    return WithPillow
