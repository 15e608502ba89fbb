"""The structured answer and the tool as pydantic models, for the clients that take those."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Shapes(BaseModel):
    """What the picture shows."""

    model_config = ConfigDict(extra="forbid")
    shape: Literal["circle", "square", "star"]
    count: Annotated[int, Field(ge=0, le=9)]


class Wait(BaseModel):
    """Waits."""

    model_config = ConfigDict(extra="forbid")
    seconds: Literal[1, 2]
