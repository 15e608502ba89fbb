"""Apple's Core ML: an ML program in fp16, which onnx2coreml makes of the graph. Core ML itself runs on Apple's systems only.

So the answers are those of the converted program by coremltools' own definitions of its operators, in NumPy: each value is
rounded to the 16 bits in which the program stores it, sums are in 32 bits. That proves the conversion, and no chip.
"""

import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import onnx2coreml
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import Function, types
from job_files import answer_all, read_job

SYSTEM = coremltools.target.iOS17  # and macOS 14


def main() -> None:
    job, pictures = read_job()
    started, package = time.monotonic(), Path(Path(job["graph"]).stem + ".mlpackage")
    model = onnx2coreml.convert(job["graph"], minimum_deployment_target=SYSTEM.name, compute_precision="fp16")
    model.save(str(package))
    file = f"{job['file']}.zip"  # a bundle holds files, and a package is a folder
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(package.rglob("*")):
            archive.write(path)
    program = model._mil_program.functions["main"]

    def answer(picture: Any) -> list[Any]:
        outputs = values(program, picture)
        return [outputs[name] for name in job["outputs"]]

    answer_all(job, pictures, started, file, answer, ("coremltools", "onnx2coreml"))


def values(program: Any, patches: Any) -> dict[str, Any]:
    """The program's outputs by name, float32 arrays."""
    held: dict[Any, Any] = {program.inputs["patches"]: patches}

    def value(variable: Any) -> Any:
        if isinstance(variable, list | tuple):
            return [value(one) for one in variable]
        if variable in held:
            return held[variable]
        constant = variable.val
        return constant.astype(np.float32) if getattr(constant, "dtype", None) == np.float16 else constant

    for operation in program.operations:
        if operation.op_type == "const":
            continue
        given = {name: value(one) for name, one in operation.inputs.items() if one is not None}
        if operation.op_type == "cast":
            found = [given["x"]]
        else:
            with Function({}, opset_version=SYSTEM):  # of constants alone, so that the builder computes
                made = getattr(Builder, operation.op_type)(**given)
            found = [one.val for one in (made if isinstance(made, list | tuple) else [made])]
        for variable, rows in zip(operation.outputs, found, strict=True):
            if rows is None:
                sys.exit(f"coremltools has no definition in NumPy of {operation.op_type}")
            is_half = variable.dtype is types.fp16
            held[variable] = rows.astype(np.float16).astype(np.float32) if is_half else rows
    return {variable.name: held[variable] for variable in program.outputs}


if __name__ == "__main__":
    main()
