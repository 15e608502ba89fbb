"""Checkpoint in, edge bundle (export.vision) and language checkpoint (export.language) out.

The only folder that needs torch, transformers and onnx; nothing here runs on a device or on the server.
"""
