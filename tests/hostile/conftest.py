"""The reference model of the serving tests."""

from tests.serving.conftest import cases, reference

__all__ = ["cases", "reference"]
