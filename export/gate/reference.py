"""transformers' own processor of a checkpoint: what the device's pictures, clips and prompts are compared with.

Everything is loaded by transformers from the folder: tokenizer, chat template, picture and video processor. Pictures take its
PIL backend, which the device follows. Its video processor computes with torchvision alone, which differs from Pillow by
up to 2 grey levels and is not needed for anything else: here it computes with Pillow, and everything around the filter
(frames, sizes, patches, times) stays transformers'.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contract.errors import BundleError

SHOWN = 300  # characters of what transformers says; it may list all it knows


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block transformers logs errors only: what it would say is for people who call it themselves."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def token_ids(reference: Any, text: str, **media: Any) -> list[int]:
    """Ids of a rendered conversation as `apply_chat_template` of transformers' ProcessorMixin tokenises it: a text that begins
    with the start token gets no second one.

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
        BundleError: transformers cannot load it.
    """
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as MODELS
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    if family not in MODELS:
        raise BundleError(f"transformers has no model of type {family!r} for pictures and text")
    try:
        processor, videos = _classes(PROCESSOR_MAPPING_NAMES[family])
        parts = (
            AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True),
            AutoTokenizer.from_pretrained(folder, local_files_only=True),
            with_pillow(videos).from_pretrained(folder, local_files_only=True),
        )
        values, _ = processor.get_processor_dict(folder, local_files_only=True)
        return unchecked(processor)(*parts, chat_template=values.get("chat_template"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{folder}: transformers cannot load its processor: {str(error)[:SHOWN]}") from error


def _classes(name: str) -> tuple[Any, Any]:
    """A processor's class and that of its videos, which transformers hides where torchvision is not installed."""
    from transformers import models

    packages = [package for package in dir(models) if name.lower() == package.replace("_", "") + "processor"]
    package = packages[0]
    processing, videos = (
        import_module(f"transformers.models.{package}.{kind}_{package}") for kind in ("processing", "video_processing")
    )
    found = [value for key, value in vars(videos).items() if key.endswith("VideoProcessor")]
    return getattr(processing, name), next(value for value in found if value.__module__ == videos.__name__)


def unchecked(processor: type) -> Any:
    """The processor without the check of its parts' classes: it looks them up among torchvision's."""

    class Reference(processor):  # type: ignore[misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> type:
            return type(argument)

    return Reference


def with_pillow(videos: type) -> Any:
    """The video processor with Pillow and numpy where transformers calls torchvision."""
    import torch
    from transformers.video_processing_utils import BaseVideoProcessor

    class Filters(BaseVideoProcessor):  # type: ignore[misc]
        def convert_to_rgb(self, video: Any) -> Any:
            return video  # the clips compared are RGB

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
