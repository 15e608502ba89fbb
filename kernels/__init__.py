"""Fast inner loops for the int8 tower, as a library of operators for onnxruntime. `python -m kernels.build` makes it."""
