"""What a sweep varies, how it searches, and when it stops a trial."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cifarray.metrics import DEFAULT_OBJECTIVE
from cifarray.spec.record import Record


class Domain(Record):
    """Where one field's values come from; exactly one kind is given."""

    choice: tuple[Any, ...] | None = Field(default=None, min_length=1)
    grid: tuple[Any, ...] | None = Field(default=None, min_length=1)
    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = None
    randint: tuple[int, int] | None = None
    """Integers from the first up to, and without, the second."""

    @model_validator(mode="after")
    def _exactly_one_kind(self) -> "Domain":
        given = [kind for kind in type(self).model_fields if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give one of {', '.join(type(self).model_fields)}, not {given or 'none'}"
            )
        bounds = self.uniform or self.loguniform or self.randint
        if bounds and not bounds[0] < bounds[1]:
            raise ValueError(f"{given[0]} requires [low, high] with low < high, not {list(bounds)}")
        if self.loguniform and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform requires bounds above 0, not {list(self.loguniform)}")
        return self

    @property
    def kind(self) -> str:
        """The kind that is given: choice, grid, uniform, loguniform or randint."""
        return next(kind for kind in type(self).model_fields if getattr(self, kind) is not None)

    @property
    def examples(self) -> tuple[Any, ...]:
        """Every value of a choice or grid; the two ends of a range."""
        if self.randint:
            return self.randint[0], self.randint[1] - 1
        return self.choice or self.grid or self.uniform or self.loguniform or ()


class SchedulerSpec(Record):
    """Which trials are stopped early: asha, median or none."""

    name: Literal["asha", "median", "none"] = "asha"
    grace_epochs: int = Field(default=3, ge=1)
    factor: int = Field(default=3, ge=2)
    """asha: of every `factor` trials at a rung, one continues."""


class SweepSpec(Record):
    """A search over job fields, named by their dotted path."""

    space: dict[str, Domain] = Field(default_factory=dict)
    """Where each field's values come from; every search but `cases` has one."""
    cases: tuple[Annotated[dict[str, Any], Field(min_length=1)], ...] = ()
    """The trials themselves, each by the fields in which it differs from the job."""
    search: Literal["random", "grid", "optuna", "cases"] = "random"
    trials: int = Field(default=20, ge=1)
    """Number of samples; with grid search, per grid point. Each case is tried once."""
    scheduler: SchedulerSpec = SchedulerSpec()
    metric: str = DEFAULT_OBJECTIVE
    max_concurrent: int | None = Field(default=None, ge=1)
    """None: as many as the profile's workers allow."""
    workers_per_trial: int = Field(default=1, ge=1)
    time_budget_s: float | None = Field(default=None, gt=0.0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _varies_something(self) -> "SweepSpec":
        if self.search == "cases" and (self.space or not self.cases):
            raise ValueError("search cases requires cases, each a mapping of fields, and no space")
        if self.search != "cases" and (self.cases or not self.space):
            raise ValueError(
                f"search {self.search} requires a space of at least 1 item, and no cases"
            )
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        """Dotted paths of what is varied."""
        in_cases = dict.fromkeys(path for case in self.cases for path in case)
        return tuple(self.space or in_cases)
