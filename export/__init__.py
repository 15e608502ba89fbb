"""Makes an edge bundle (export.vision) and a language checkpoint (export.language) of a checkpoint.

The only folder that needs torch, transformers and onnx; nothing here runs on a device or on the server.
"""
