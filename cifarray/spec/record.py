"""The base of every record that a person writes: unknown fields are refused."""

from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Record(BaseModel):
    """A frozen, strict-shaped pydantic record."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would accept true as 1."""
        if isinstance(value, bool) and info.field_name is not None:
            kinds = plain_types(cls.model_fields[info.field_name].annotation)
            if kinds & {int, float} and bool not in kinds:
                raise ValueError("input should be a number")
        return value


def plain_types(annotation: Any) -> set[Any]:
    """The types that a field takes, without what narrows them: int and NoneType of `int | None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return plain_types(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return {kind for option in get_args(annotation) for kind in plain_types(option)}
    return {annotation}
