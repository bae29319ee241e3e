"""Which sentence and remedy a failure's text gives: real texts, each with its origin."""

from typing import Any

import pytest
import yaml

from cifarray.errors import JobError, RepeatingError, RunFailedError
from cifarray.runs.failures.causes import KNOWN, LONGEST, failed_worker, find_cause, worker_cause
from tests.conftest import REPOSITORY

FILES = sorted((REPOSITORY / "tests" / "failures").glob("*.yaml"))
TEXTS: list[dict[str, Any]] = [
    entry for path in FILES for entry in yaml.safe_load(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("entry", TEXTS, ids=lambda entry: entry["name"])
def test_a_real_failure_gives_the_sentence_and_the_remedy_that_a_person_needs(
    entry: dict[str, Any],
) -> None:
    cause = find_cause(entry["text"])
    assert cause.sentence == entry["sentence"]
    assert cause.remedy == entry["remedy"]
    assert cause.repeats == entry["repeats"]


def test_each_text_says_where_it_comes_from() -> None:
    assert len(TEXTS) >= 60
    assert all(entry["origin"] for entry in TEXTS)
    assert len({entry["name"] for entry in TEXTS}) == len(TEXTS)


def test_most_entries_of_the_table_are_met_by_a_real_text() -> None:
    met = {known for known in KNOWN for entry in TEXTS if known.pattern.search(entry["text"])}
    assert len(met) >= 0.8 * len(KNOWN), [k.sentence for k in KNOWN if k not in met]


def test_a_sentence_of_ours_is_told_as_it_is() -> None:
    assert str(find_cause(JobError("train.epochs is 0; raise it"))) == "train.epochs is 0; raise it"
    assert find_cause(JobError("train.epochs is 0; raise it")).remedy == "raise it"
    remote = 'ray::train()\n  File "x.py", line 3\ncifarray.errors.RunFailedError: it diverged'
    assert find_cause(RuntimeError(remote)).sentence == "it diverged"


def test_the_place_in_the_runs_own_code_is_named() -> None:
    text = (
        'Traceback (most recent call last):\n  File "/tmp/cifarray-code-ab12/nets/wide.py", '
        "line 12, in forward\n    return self.haed(x)\n"
        "AttributeError: 'Net' object has no attribute 'haed'\n"
    )
    told = "AttributeError: 'Net' object has no attribute 'haed' (nets/wide.py, line 12)"
    assert find_cause(text).sentence == told


def test_the_lines_of_a_programs_own_code_are_not_taken_for_what_it_says() -> None:
    text = (
        'Traceback (most recent call last):\n  File "a.py", line 1, in f\n'
        '    raise KeyError("x")  # not CUDA out of memory. Tried to allocate 2 GiB\n'
        "KeyError: 'x'\n"
    )
    assert find_cause(text).sentence == "KeyError: 'x'"


def test_what_is_raised_from_another_error_is_told_before_it() -> None:
    try:
        try:
            raise KeyError("width")
        except KeyError as error:
            raise ValueError("the network needs a width") from error
    except ValueError as error:
        assert find_cause(error).sentence == "ValueError: the network needs a width"


def test_what_was_being_handled_is_not_taken_for_the_cause() -> None:
    try:
        try:
            raise JobError("another matter")
        except JobError:
            raise ValueError("the network needs a width")  # noqa: B904
    except ValueError as error:
        assert find_cause(error).sentence == "ValueError: the network needs a width"


def test_nothing_and_an_error_without_words_are_told_by_their_kind() -> None:
    assert find_cause("").sentence == "it has no message"
    assert find_cause(ZeroDivisionError()).sentence == "ZeroDivisionError"


def test_a_long_text_is_cut() -> None:
    assert len(find_cause(ValueError("x" * 5000)).sentence) <= LONGEST


class GroupError(Exception):
    """Holds the errors of workers as Ray Train's does."""

    def __init__(self, failures: dict[int, Exception]) -> None:
        super().__init__("Training failed due to worker errors:")
        self.worker_failures = failures


LOST_PEER = RuntimeError(
    "[third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [10.0.0.2]:6031."
)
KILLED = RuntimeError(
    "A worker health check failed.\nhostname='node-7',\nThe actor is dead because its worker "
    "process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly "
    "exits with a connection error code 2. End of file."
)


def test_of_several_workers_the_one_that_failed_by_itself_is_told() -> None:
    rank, cause = worker_cause({0: LOST_PEER, 1: KILLED})
    assert rank == 1
    assert cause.sentence == "the worker's process was killed from outside or crashed"
    assert find_cause(GroupError({0: LOST_PEER, 1: KILLED})) == cause
    assert failed_worker(GroupError({0: LOST_PEER, 1: KILLED})) == {"rank": 1, "host": "node-7"}


def test_the_worker_of_an_error_that_comes_again_is_known() -> None:
    again = RepeatingError("a wrong shape")
    again.rank, again.host = 3, "node-2"
    told = RunFailedError("training failed: a wrong shape")
    told.__cause__ = again
    assert failed_worker(told) == {"rank": 3, "host": "node-2"}
    assert failed_worker(RunFailedError("no room")) is None
