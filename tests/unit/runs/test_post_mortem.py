"""What is kept of a failed attempt: no secret, and of a bounded size."""

import json
from pathlib import Path

import pytest

from cifarray.runs import Run
from cifarray.runs.post_mortem import (
    LINE_CHARS,
    LINES,
    last_lines,
    masked,
    read_post_mortem,
    stored_log,
    write_post_mortem,
)
from cifarray.store import Store
from cifarray.store.layout import POST_MORTEM_FILE
from tests.unit.runs.conftest import run_spec


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Store.open(str(tmp_path / "store")), run_spec("a-run"))


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("key AKIAIOSFODNN7EXAMPLE in use", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI"),
        ('"aws_session_token": "FwoGZXIvYXdzEBYaDK"', "FwoGZXIvYXdzEBYaDK"),
        ("Authorization: Bearer 0f3d9a7c5b", "0f3d9a7c5b"),
        ("https://user:pa55word@registry.example/v2", "pa55word"),
        ("GET /k?X-Amz-Signature=aeeed9bbccd4&x=1", "aeeed9bbccd4"),
        ("hf_ABCDEFGHIJKLMNOPQRSTUV", "hf_ABCDEFGHIJKLMNOPQRSTUV"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sig-part", "eyJzdWIiOiIxMjM0In0"),
    ],
)
def test_keys_tokens_and_passwords_are_masked(text: str, secret: str) -> None:
    assert secret not in masked(text)
    assert "***" in masked(text)


def test_what_is_no_secret_stays() -> None:
    text = "epoch 3  validation.top1 0.91  lr 0.1, tokens of a batch: 12, key points/a.parquet"
    assert masked(text) == text


def test_the_values_of_this_processs_secrets_are_masked_wherever_they_stand(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_DATABASE_PASSWORD", "correct horse battery")
    found = {"workers": {"worker-1.err": ["it said: correct horse battery"]}, "attempt": 1}
    write_post_mortem(run.store, run.key("attempts", "1"), found)
    kept = run.store.read(run.key("attempts", "1", POST_MORTEM_FILE)).decode()
    assert "horse" not in kept
    assert json.loads(kept)["workers"] == {"worker-1.err": ["it said: ***"]}


def test_the_end_of_a_log_is_bounded() -> None:
    lines = last_lines("\n".join(f"{n} {'x' * 9000}" for n in range(1000)))
    assert len(lines) == LINES
    assert max(map(len, lines)) == LINE_CHARS
    assert lines[-1].startswith("999 ")


def test_a_damaged_or_missing_one_is_none(run: Run) -> None:
    assert read_post_mortem(run, 1) is None
    run.store.write(run.key("attempts", "1", POST_MORTEM_FILE), b"{ torn")
    assert read_post_mortem(run, 1) is None


def test_the_newest_log_that_an_attempt_left_is_found(run: Run) -> None:
    assert stored_log(run) == ("", "")
    run.store.write(run.key("attempts", "1", "driver.log"), b"first\n")
    run.store.write(run.key("attempts", "2", "metrics.jsonl"), b"")
    assert stored_log(run) == (run.key("attempts", "1", "driver.log"), "first\n")
