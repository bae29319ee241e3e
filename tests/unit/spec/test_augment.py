"""A preset is spelled out in a job's record, and fields that contradict each other are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from cifarray.errors import JobError
from cifarray.spec.augment import PRESETS, AugmentSpec, PreprocessSpec
from cifarray.spec.job import Job
from cifarray.spec.load import load_job, to_yaml, with_fields
from tests.digit_sessions import small_job

EXPECTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "simple": ({}, {"normalize": "unit"}),
    "complex": (
        {"horizontal_flip": {}, "vertical_flip": {}, "zoom": {"fraction": 0.2}},
        {"normalize": "standardize"},
    ),
    "whitening": ({}, {"normalize": "whitening", "epsilon": 1e-6}),
    "backbone": ({}, {"normalize": "imagenet"}),
}
"""What the published generators did, in fields of a job."""


def preset(name: str, augment: dict[str, Any] | None = None, **preprocess: Any) -> Job:
    return small_job(augment={"preset": name, **(augment or {})}, preprocess=preprocess)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_resolved_to_its_fields(name: str):
    augment, preprocess = EXPECTED[name]
    job = preset(name)
    assert job == small_job(augment=augment, preprocess=preprocess)
    assert "preset" not in to_yaml(job)
    assert Job.model_validate(job.model_dump(mode="json")) == job


def test_every_preset_that_a_job_may_name_is_there():
    assert PRESETS.keys() == EXPECTED.keys()
    (names, _) = AugmentSpec.model_fields["preset"].annotation.__args__  # type: ignore[union-attr]
    assert set(names.__args__) == PRESETS.keys()


def test_what_is_given_beside_a_preset_stays():
    job = preset("complex", {"zoom": {"fraction": 0.1}, "vertical_flip": None, "mixup": {}})
    assert job.augment.zoom is not None
    assert job.augment.zoom.fraction == 0.1
    assert job.augment.horizontal_flip is not None
    assert job.augment.vertical_flip is None
    assert job.augment.mixup is not None
    assert preset("whitening", epsilon=0.1).preprocess.epsilon == 0.1


def test_a_preset_may_stand_in_records_that_are_built_by_hand():
    values = small_job().model_dump(exclude={"preprocess", "augment"})
    job = Job.model_validate(values | {"augment": AugmentSpec(preset="complex")})
    assert job == preset("complex")


def test_a_preset_beside_another_way_to_normalize_is_refused():
    with pytest.raises(ValidationError, match=r"preset whitening means .* whitening, not unit; le"):
        preset("whitening", normalize="unit")
    assert preset("simple", normalize="unit").preprocess.normalize == "unit"


def test_a_preset_can_be_set_on_the_command_line():
    job = load_job("train-digits", ["augment.preset=whitening", "preprocess.epsilon=1e-3"])
    assert job.preprocess == PreprocessSpec(normalize="whitening", epsilon=1e-3)
    assert job.augment.padded_crop is not None  # the file's own
    with pytest.raises(JobError, match=r"augment\.preset: .*'simple', 'complex', 'whitening' or"):
        load_job("train-digits", ["augment.preset=plain"])


@pytest.mark.parametrize("section", [3, [1], "x", None])
def test_a_section_that_is_none_is_still_refused_beside_a_preset(section: Any):
    values = small_job().model_dump() | {"augment": {"preset": "simple"}, "preprocess": section}
    with pytest.raises(ValidationError, match="preprocess"):
        Job.model_validate(values)


def test_whitening_states_its_epsilon():
    sentence = r"preprocess: whitening requires preprocess\.epsilon.*; Keras' generators take 1e-6"
    with pytest.raises(JobError, match=sentence):
        with_fields(small_job(), {"preprocess.normalize": "whitening"})


def test_a_label_is_mixed_of_two():
    with pytest.raises(ValidationError, match="give mixup or cutmix, not both"):
        AugmentSpec.model_validate({"mixup": {}, "cutmix": {}})


@pytest.mark.parametrize(
    "augment",
    [
        {"rotation": {"degrees": 181}},
        {"rotation": {}},
        {"shift": {"fraction": 1}},
        {"zoom": {"fraction": -0.1}},
        {"brightness": {"fraction": 1.1}},
        {"cutout": {"size": 0}},
        {"mixup": {"alpha": 0}},
        {"cutmix": {"alpha": -1}},
        {"fill": "reflect"},
    ],
)
def test_ranges_are_bounded(augment: dict[str, Any]):
    with pytest.raises(ValidationError):
        AugmentSpec.model_validate(augment)
