"""The served models as clients name them. These are names of services: the server gives them to every family.

This file needs the standard library only: the guardian and the health probe run without packages.
"""

MODEL, UNARY_MODEL, VISION_MODEL = "edge_vlm", "edge_vlm_unary", "edge_vlm_vision"
OLD_NAMES = {"qwen3_vl": MODEL, "qwen3_vl_unary": UNARY_MODEL, "qwen3_vl_vision": VISION_MODEL}  # they still answer
GATEWAY_NAMES = (MODEL, *(old for old, model in OLD_NAMES.items() if model == MODEL))  # what `model` may say by default
