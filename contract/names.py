"""The served models as clients name them. These are names of services: every family is served under them.

Standard library only: the guardian and the health probe run without packages.
"""

MODEL, UNARY_MODEL, VISION_MODEL = "qwen3_vl", "qwen3_vl_unary", "qwen3_vl_vision"
