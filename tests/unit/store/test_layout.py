"""Where things lie in a store."""

from cifarray.store.layout import (
    Place,
    dataset_prefix,
    features_prefix,
    latest_key,
    manifest_key,
)


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
