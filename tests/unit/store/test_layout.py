"""Where things lie in a store."""

import pytest

from cifarray.store.layout import (
    Located,
    Place,
    dataset_prefix,
    features_prefix,
    latest_key,
    locate,
    locate_dataset,
    manifest_key,
    run_folder,
)

RUN = Place("digits-1")


def test_a_trial_lies_below_its_attempt_and_that_below_its_run():
    run = Place("digits-1")
    attempt = run.of_attempt(3)
    trial = attempt.of_trial("1a2b_00003")
    assert run.prefix == "runs/digits-1"
    assert attempt.prefix == "runs/digits-1/attempts/3"
    assert trial.prefix == "runs/digits-1/attempts/3/trials/1a2b_00003"
    assert trial.without_trial == attempt
    assert trial.key("checkpoints", "epoch_3") == f"{trial.prefix}/checkpoints/epoch_3"


def test_what_belongs_to_a_dataset_lies_below_twelve_digits_of_its_digest():
    digest = "0123456789abcdef" * 4
    assert dataset_prefix("digits", digest) == "datasets/digits/0123456789ab"
    assert manifest_key("digits", digest) == "datasets/digits/0123456789ab/manifest.json"
    assert latest_key("digits") == "datasets/digits/LATEST"
    assert features_prefix("digits", digest, digest[::-1]) == (
        "features/digits/0123456789ab/fedcba987654"
    )


@pytest.mark.parametrize("place", [RUN, RUN.of_attempt(3), RUN.of_attempt(3).of_trial("1a2b_0")])
@pytest.mark.parametrize("parts", [("metrics.jsonl",), ("checkpoints", "epoch_3", "state.pt")])
def test_a_key_is_located_where_its_place_put_it(place: Place, parts: tuple[str, ...]):
    part, *rest = parts
    assert locate(place.key(*parts)) == Located(place, part, "/".join(rest))


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("runs/digits-1", None),
        ("runs/", None),
        ("datasets/digits-1/attempts/3/driver.log", None),
        ("digits-1/attempts/3/driver.log", None),
        ("runs/digits-1/attempts/3", Located(RUN, "attempts", "3")),
        ("runs/digits-1/attempts/03/driver.log", Located(RUN, "attempts", "03/driver.log")),
        ("runs/digits-1/attempts/-3/driver.log", Located(RUN, "attempts", "-3/driver.log")),
        ("runs/digits-1/attempts/³/driver.log", Located(RUN, "attempts", "³/driver.log")),
        (
            "runs/digits-1/attempts/3/trials/tuner.pkl",
            Located(RUN.of_attempt(3), "trials", "tuner.pkl"),
        ),
        ("runs/digits-1/report/attempts/3/x", Located(RUN, "report", "attempts/3/x")),
    ],
)
def test_what_is_no_attempts_or_trials_folder_is_taken_for_none(key: str, found: Located | None):
    assert locate(key) == found


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("attempts/1/checkpoints/epoch_1", ""),
        ("checkpoints/epoch_1", ""),
        ("digits-1/attempts/1/checkpoints/epoch_1", "digits-1"),
        ("pulled/digits-1/attempts/1/trials/a/checkpoints/epoch_1", "pulled/digits-1"),
    ],
)
def test_a_copys_folder_ends_before_its_attempts(path: str, folder: str):
    assert run_folder(path) == folder


def test_only_what_lies_in_a_datasets_folder_belongs_to_it():
    assert locate_dataset("datasets/digits/0123456789ab/train/part-0.parquet") == (
        "digits",
        "0123456789ab",
    )
    assert locate_dataset("datasets/digits/LATEST") is None
    assert locate_dataset("features/digits/0123456789ab/about.json") is None
