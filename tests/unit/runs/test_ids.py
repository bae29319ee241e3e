"""Run ids are unique, sortable and take any job's name."""

import re

import pytest

from cifarray.runs import new_run_id
from cifarray.runs.run import is_run_id, submitted_order


@pytest.mark.parametrize(
    ("job", "begin"),
    [
        ("train-digits", "train-digits-"),
        ("Tune_CIFAR 100!", "tune-cifar-100-"),
        ("3layers", "job-3layers-"),
        ("ünï", "n-"),
        ("", "job-"),
        ("--", "job-"),
        ("a" * 100, "a" * 28 + "-"),
        ("a" * 27 + "-b", "a" * 27 + "-2"),
    ],
)
def test_every_job_name_gives_a_dns_label_of_at_most_47_characters(job: str, begin: str) -> None:
    run_id = new_run_id(job)
    assert run_id.startswith(begin)
    assert len(run_id) <= 47
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", run_id)
    assert re.search(r"-\d{6}-\d{6}-[0-9a-f]{4}$", run_id)
    assert is_run_id(run_id)


def test_ids_of_one_second_differ() -> None:
    assert len({new_run_id("job") for _ in range(50)}) > 45


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "1a", "a-", "-a", "a" * 64, "a\nb", "a b"])
def test_what_could_be_no_folder_or_kubernetes_name_is_no_run_id(name: str) -> None:
    assert not is_run_id(name)


def test_ids_sort_by_their_time_whatever_the_job() -> None:
    ids = ["z-251231-235959-0000", "own-name", "b-261123-100001-0000", "c-261123-100000-0000"]
    assert sorted(ids, key=submitted_order) == [ids[1], ids[0], ids[3], ids[2]]
