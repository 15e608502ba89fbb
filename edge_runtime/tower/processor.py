"""What this processor says it can do."""

import platform
from pathlib import Path

INSTRUCTION_SETS = {  # as /proc/cpuinfo names them, on x86 and on ARM
    "sse4_1", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
}  # fmt: skip
VNNI = {"avx_vnni", "avx512_vnni"}  # multiply bytes and keep the sums whole


def instruction_sets() -> list[str]:
    """The instruction sets of this processor for which onnxruntime has kernels; empty where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    lines = (line.partition(":") for line in text.splitlines())
    return sorted({word for name, _, words in lines if name.strip() in ("flags", "Features") for word in words.split()} & INSTRUCTION_SETS)  # fmt: skip


def processor_name() -> str:
    """The processor's name, with family and model on x86, or implementer and part on Arm: many sorts share a name."""
    try:
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    except OSError:
        return platform.processor()
    facts = {name.strip(): value.strip() for name, _, value in lines}
    told = ("cpu family", "model", "CPU implementer", "CPU part")
    return ", ".join([facts.get("model name", platform.machine()), *(f"{word} {facts[word]}" for word in told if word in facts)])  # fmt: skip


def cuts_sums_off() -> bool:
    """Whether onnxruntime multiplies unsigned by signed bytes here with an instruction that keeps 16 bits of each sum
    of two products. It does on x86 without VNNI; this call also says so on x86 where the system hides the
    instructions."""
    return platform.machine() in ("x86_64", "AMD64") and not VNNI & set(instruction_sets())
