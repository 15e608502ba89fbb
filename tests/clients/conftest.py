"""The gateway that all clients ask."""

from tests.gateway.conftest import gateway

__all__ = ["gateway"]
