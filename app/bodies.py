"""What the JSON bodies of requests are made of, whatever the resource. Not for what is answered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Body(BaseModel):
    """A body or a part of one: its values have exactly their JSON types, and its strings are Unicode."""

    model_config = ConfigDict(strict=True, str_min_length=0)  # without any bound half a surrogate pair gets through


MaxCost = Annotated[
    float | None,
    Field(gt=0, description="Dollars. At that cost nothing more is sent, but what is in flight ends. Our extension."),
]

Dedupe = Annotated[
    bool | None,
    Field(
        description="Whether requests of the same body are sent once, and answered for all of them; if it is not said, "
        "those of temperature 0 are. Our extension."
    ),
]


class ExpiresAfter(Body):
    """How long a file is kept, from its creation."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3_600, le=2_592_000)
