"""The base of every record that a person writes: unknown fields are refused."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen, strict-shaped pydantic record."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )
