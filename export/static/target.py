"""The accelerators for which the export writes static graphs, and what each compiler takes.

The lists say what was seen: each compiler ran on this graph, or refused an operator by name (docs/accelerators.md).
Hailo's compiler lies behind a login; its list follows what its users report of the parser.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from contract.errors import InvalidInput, shown

# What static graphs are made of; every compiler here takes these.
STATIC = frozenset(
    {
        "Add", "Concat", "Div", "LayerNormalization", "MatMul", "Mul", "ReduceMean", "Reshape", "Sigmoid", "Softmax",
        "Split", "Sqrt", "Sub", "Tanh", "Transpose",
    }
)  # fmt: skip
LOOP = "it makes a graph of unknown sizes"
OWN = "the compiler knows standard operators only"
GATHER = "a chip loses accuracy there that its simulator keeps"


@dataclass(frozen=True)
class Target:
    """What one accelerator's compiler takes.

    Attributes:
        operators: of the default domain.
        max_opset: the newest opset.
        precisions: how the accelerator may compute; the first is the default.
        reasons: why the compiler refuses an operator, by its name.
        chips: for which it compiles, the default first; empty where one file runs on all.
        own_files: precisions for which the device takes a file of the toolchain in the place of the ONNX graph.
    """

    name: str
    operators: frozenset[str]
    max_opset: int
    precisions: tuple[str, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)
    chips: tuple[str, ...] = ()
    own_files: tuple[str, ...] = ()

    @property
    def has_erf(self) -> bool:
        """Whether an exact gelu can be written."""
        return "Erf" in self.operators

    @property
    def forms(self) -> dict[str, bool]:
        """How gelu is written for it, as StaticLayers takes it."""
        return {"has_erf": self.has_erf, "is_factored": self.name == "onnx"}


_REASONS = {"Loop": LOOP, "If": LOOP, "Gather": GATHER}
_ALL = (
    Target("onnx", STATIC | {"Erf"}, 17, ("fp32",), _REASONS),
    Target(
        "qnn",
        STATIC | {"Erf", "Gelu", "Conv", "QuantizeLinear", "DequantizeLinear"},
        20,
        ("fp16", "a16w8", "int8"),
        _REASONS,
        chips=("57", "43"),  # Snapdragon 8 Gen 3 and Gen 2, as QNN numbers them
        own_files=("a16w8", "int8"),
    ),
    Target("openvino", STATIC | {"Erf", "Gelu", "Conv", "Gather"}, 20, ("fp16", "int8"), _REASONS, own_files=("int8",)),
    Target(
        "rknn",
        STATIC | {"Erf", "Conv"},
        19,
        ("fp16", "int8"),
        _REASONS | {"Gelu": "it is newer than opset 19"},
        chips=("rk3588", "rk3576"),
        own_files=("fp16", "int8"),
    ),
    Target("coreml", STATIC | {"Erf"}, 17, ("fp16",), _REASONS, own_files=("fp16",)),
    Target("litert", STATIC | {"Erf"}, 17, ("fp32",), _REASONS, own_files=("fp32",)),
    Target("mnn", STATIC | {"Erf"}, 17, ("fp32", "fp16", "int8"), _REASONS),
    Target("hailo", STATIC, 17, ("fp32",), _REASONS | {"Erf": "its parser calls it an unsupported activation"}),
)
BY_NAME = {target.name: target for target in _ALL}
EXPORTED = ("onnx", "qnn", "openvino", "rknn", "coreml", "litert", "hailo")  # `make npu` measures MNN too


def target_named(name: str) -> Target:
    """The target of this name.

    Raises:
        InvalidInput: the export writes no files for it.
    """
    if name not in EXPORTED:
        raise InvalidInput(f"--target is {shown(name)}, {', '.join(EXPORTED)} can be exported")
    return BY_NAME[name]
