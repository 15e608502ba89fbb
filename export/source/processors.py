"""What a checkpoint's processor files say about pictures and videos, by transformers' rules but without transformers.

The order of files, the value of an absent key and the meaning of null are those of transformers 5.23
(Qwen2VLImageProcessorPil, Qwen3VLVideoProcessor): processor_config.json comes first, and videos take the pictures' file
where they have none of their own. `Processors` refuses by name what the device does otherwise; export.gate.processor
compares the rest with transformers' own processors.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from contract.errors import BundleError
from contract.preprocessing import ImageProcessing, Triple, VideoProcessing

NESTED, PICTURES, VIDEOS = "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"
FILES = (NESTED, PICTURES, VIDEOS)
BOTH: dict[str, Any] = {
    "do_resize": True, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "do_convert_rgb": True, "temporal_patch_size": 2, "merge_size": 2,
}  # fmt: skip
PICTURE_DEFAULTS: dict[str, Any] = BOTH | {
    "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "patch_size": 14,
}
VIDEO_DEFAULTS: dict[str, Any] = BOTH | {  # Qwen3-VL's; export.families.Family.VIDEO has each family's own
    "size": {"shortest_edge": 128 * 32 * 32, "longest_edge": 32 * 32 * 768},
    "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "patch_size": 16,
    "do_sample_frames": True, "fps": 2, "num_frames": None, "min_frames": 4, "max_frames": 768,
    "cap_pixels_per_frame": None, "max_video_tokens": 768,
}  # fmt: skip
CHOICE = "do_sample_frames"
BUDGET_OF_FRAME = "min_pixels"  # a key of a family's video defaults: size then bounds one frame, as a picture's does
ALWAYS = {  # what the device does to every picture and video
    "do_resize": "sizes it to whole merge blocks",
    "do_convert_rgb": "makes it RGB",
    CHOICE: "chooses the frames of a file",
}
DEVICE_FPS = 2.0  # where a checkpoint leaves the choice of frames to its caller; qwen-vl-utils takes as many
PICTURE_FILTERS = {0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "Hamming"}
VIDEO_FILTERS = {
    2: "bilinear",
    3: "bicubic",
}  # the others differ between Pillow and torchvision, which transformers uses


class Processors:
    """The processor files of one checkpoint.

    Args:
        read: gives a JSON file of the folder as an object, None where there is no such file.
        vision: config.json's vision_config.
        video: what the family's video processor does where a file says nothing.

    Raises:
        BundleError: a file is missing, or a value has the wrong type or is one that the device cannot follow.
    """

    def __init__(
        self,
        read: Callable[[str], dict[str, Any] | None],
        vision: Mapping[str, Any],
        video: Mapping[str, Any] = VIDEO_DEFAULTS,
    ) -> None:
        self._vision, self._video_defaults = vision, video
        nested = read(NESTED) or {}
        source, found = _first(
            (f"{NESTED}: image_processor", nested.get("image_processor")), (PICTURES, read(PICTURES))
        )
        self.image = self._image(found, source)
        source, found = _first(
            (f"{NESTED}: video_processor", nested.get("video_processor")), (VIDEOS, read(VIDEOS)), (source, found)
        )
        self.video = self._video(found, source)

    def _image(self, found: dict[str, Any], source: str) -> ImageProcessing:
        values = PICTURE_DEFAULTS | found
        self._check(values, source, PICTURE_FILTERS, ALWAYS)
        mean, std = _statistics(values, source)
        return ImageProcessing(
            *_budget(_size(values, PICTURE_DEFAULTS["size"], source), source),
            mean,
            std,
            resample=int(values["resample"]),
        )

    def _video(self, found: dict[str, Any], source: str) -> VideoProcessing:
        defaults = self._video_defaults
        values = {**defaults, **found}
        is_left = defaults["do_sample_frames"] is False  # transformers takes all frames that it gets
        self._check(values, source, VIDEO_FILTERS, [name for name in ALWAYS if not (is_left and name == CHOICE)])
        fps, num_frames = values["fps"], values["num_frames"]
        if is_left and fps is None and num_frames is None:
            fps = values["fps"] = DEVICE_FPS
        if fps is not None and num_frames is not None:
            raise BundleError(
                f"{source}: fps is {fps} and num_frames is {num_frames}, transformers takes one of them: set one to null"
            )
        mean, std = _statistics(values, source)
        if (mean, std) != (self.image.mean, self.image.std):
            raise BundleError(
                f"{source}: mean {list(mean)} and std {list(std)} differ from the pictures' {list(self.image.mean)} and "
                f"{list(self.image.std)}, rescale_factor in both: the graph normalises both alike"
            )
        most = int(_number(values, "max_video_tokens", source)) if values["cap_pixels_per_frame"] else None
        size = _object(values["size"], "size", source)
        if BUDGET_OF_FRAME in defaults:
            size = _size(values, defaults["size"], source)
        return VideoProcessing(
            *_budget(size, source),
            mean,
            std,
            None if fps is None else _number(values, "fps", source),
            int(_number(values, "min_frames", source)),
            int(_number(values, "max_frames", source)),
            resample=int(values["resample"]),
            num_frames=None if num_frames is None else int(_number(values, "num_frames", source)),
            max_frame_tokens=None if BUDGET_OF_FRAME in defaults else most,
            max_video_tokens=most if BUDGET_OF_FRAME in defaults else None,
        )

    def _check(self, values: dict[str, Any], source: str, filters: dict[int, str], always: Iterable[str]) -> None:
        for ours, theirs in (("patch_size",) * 2, ("temporal_patch_size",) * 2, ("merge_size", "spatial_merge_size")):
            if values[ours] != self._vision.get(theirs):
                raise BundleError(
                    f"{source}: {ours} is {values[ours]}, vision_config.{theirs} is {self._vision.get(theirs)}: "
                    "they must be equal"
                )
        for name in always:
            if name in values and values[name] is not True:
                raise BundleError(
                    f"{source}: {name} is {values[name]!r}, the device always {ALWAYS[name]}: set it to true"
                )
        if values["resample"] not in filters:
            known = ", ".join(f"{number} ({name})" for number, name in filters.items())
            raise BundleError(f"{source}: resample is {values['resample']!r}, the device has {known}")


def _first(*candidates: tuple[str, Any]) -> tuple[str, dict[str, Any]]:
    for source, found in candidates:
        if found is not None:
            return source, _object(found, "it", source)
    raise BundleError(f"the checkpoint has neither {PICTURES} nor {NESTED} with an image_processor: is it complete?")


def _object(value: Any, name: str, source: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BundleError(f"{source}: {name} is {value!r}, an object is expected")
    return value


def _size(values: dict[str, Any], default: dict[str, Any], source: str) -> dict[str, Any]:
    """The size that a file asks for; the older names min_pixels and max_pixels override its edges."""
    size = dict(_object(values["size"] if values["size"] is not None else default, "size", source))
    for name, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        if values.get(name) is not None:
            size[edge] = values[name]
    return size


def _number(values: dict[str, Any], name: str, source: str) -> float:
    value = values[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise BundleError(f"{source}: {name} is {value!r}, a number above 0 is expected")
    return float(value)


def _budget(size: dict[str, Any], source: str) -> tuple[int, int]:
    """The fewest and the most pixels."""
    given = {name: size.get(name) for name in ("shortest_edge", "longest_edge")}
    if wrong := [name for name, value in given.items() if value is None]:
        raise BundleError(f"{source}: size has no key {wrong[0]!r}, transformers' processor needs it")
    low, high = (int(_number(given, name, f"{source}: size")) for name in given)
    return low, high


def _statistics(values: dict[str, Any], source: str) -> tuple[Triple, Triple]:
    """The mean and std with which a byte / 255 becomes the number that the processor makes of the byte itself."""
    mean, std = _triple(values, "image_mean", source), _triple(values, "image_std", source)
    if values["do_normalize"] is not True:
        mean, std = (0.0,) * 3, (1.0,) * 3
    factor = _number(values, "rescale_factor", source) if values["do_rescale"] is True else 1.0
    gain = 255 * factor
    if abs(gain - 1) > 1e-9:
        mean, std = (mean[0] / gain, mean[1] / gain, mean[2] / gain), (std[0] / gain, std[1] / gain, std[2] / gain)
    if min(std) <= 0:
        raise BundleError(f"{source}: image_std is {list(std)}, numbers above 0 are expected")
    return mean, std


def _triple(values: dict[str, Any], name: str, source: str) -> Triple:
    value = values[name]
    found = [value] * 3 if isinstance(value, int | float) else value
    if not isinstance(found, list) or len(found) != 3 or not all(isinstance(x, int | float) for x in found):
        raise BundleError(f"{source}: {name} is {value!r}, three channels are expected")
    return (float(found[0]), float(found[1]), float(found[2]))
