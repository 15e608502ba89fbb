"""Fast inner loops for the tower, as a library of operators for onnxruntime. `python -m kernels.build` makes it."""
