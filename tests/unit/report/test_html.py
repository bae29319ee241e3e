"""The page: complete, self-contained, and unmoved by whatever a text says."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cifarray.report.build import write_report
from tests import report_samples
from tests.unit.report.conftest import HOSTILE, Written

VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """Collects tags and attributes, and insists that tags close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(params=["trained", "swept", "hostile"])
def outline(request: pytest.FixtureRequest) -> Outline:
    """The outline of each page."""
    return Outline(request.getfixturevalue(request.param).page)


def test_tags_close_in_order_and_ids_are_unique(outline: Outline):
    assert outline.open == []
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_asked_of_the_network(outline: Outline):
    for tag, attributes in outline.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        assert "url(" not in attributes.get("style", "").replace("url(#", "")


def test_references_lead_somewhere(outline: Outline):
    ids = {attributes.get("id") for _, attributes in outline.tags}
    for _, attributes in outline.tags:
        target = attributes.get("href", "")
        if target.startswith("#"):
            assert target[1:] in ids


def test_only_the_pages_own_script_may_run(outline: Outline, hostile: Written):
    assert [tag for tag, _ in outline.tags].count("script") == 1
    assert not [a for _, a in outline.tags if any(name.startswith("on") for name in a)]
    policies = [a["content"] for _, a in outline.tags if "Policy" in a.get("http-equiv", "")]
    assert policies[0].startswith("default-src 'none'; script-src 'sha256-")
    script = hostile.page.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policies[0]


def test_hostile_texts_are_shown_as_they_are_and_nowhere_as_markup(hostile: Written):
    page = hostile.page
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in page
    assert "a $x^2$ &amp; &#34;b&#34; &#39;c&#39;" in page
    assert "名前" in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", page)


def test_the_page_says_what_ran(trained: Written):
    page = trained.page
    for text in (
        "train-digits-260301-120000-3f1c", "Handwritten digits", "3f1c3f1c3f1c", "cnn3",
        "1,193,636", "2.15.0", "Xeon, 2 cores", "8.0 GiB", "threads per worker", "1 min 13 s",
        "2026-03-01 12:00:00 UTC", "global_batch_size: 256", "862 /s",
    ):  # fmt: skip
        assert text in page, text


def test_the_page_says_what_the_dataset_left_out_of_its_source(
    trained: Written, swept: Written, tmp_path: Path
):
    assert "<dt>left out</dt><dd>nothing</dd>" in trained.page
    assert "Left out of the dataset" not in trained.page
    assert swept.content["dataset"]["left_out"] == list(report_samples.left_out("class 0"))
    table = swept.page.partition("<h3>Left out of the dataset</h3>")[2].partition("</table>")[0]
    for cell in ("image", "unreadable", "train", "1,234", "3", "Thumbs.db"):
        assert f">{cell}</td>" in table
    uncounted = report_samples.inputs()
    dataset = replace(uncounted.dataset, left_out=None)
    content = write_report(tmp_path, replace(uncounted, dataset=dataset))
    assert content["dataset"]["left_out"] is None
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<dt>left out</dt><dd>not counted</dd>" in page


def test_the_page_shows_the_figures_of_report_json(trained: Written):
    test = trained.content["test"]
    low, high = test["top1_interval"]
    assert f"{100 * test['top1']:.2f} %" in trained.page
    assert f"{100 * low:.2f} to {100 * high:.2f} %" in trained.page
    assert f"{test['loss']:.4f}" in trained.page
    assert trained.page.count('<img src="data:image/png') == len(trained.inputs.mistakes)


def test_the_page_draws_the_network_and_says_how_to_use_it(trained: Written):
    assert 'aria-label="The network cnn3"' in trained.page
    assert "cifarray export train-digits-260301-120000-3f1c --format onnx" in trained.page


def test_a_run_whose_layers_nobody_kept_has_no_network_on_its_page(tmp_path: Path):
    write_report(tmp_path, report_samples.inputs(layers=()))
    assert 'id="network"' not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_epoch_stands_on_the_page_with_its_seconds(trained: Written):
    table = trained.page.partition("<summary>Every epoch</summary>")[2].partition("</table>")[0]
    assert table.count("<tr") == 1 + len(trained.inputs.history)
    assert table.count('<td class="n">1.9</td></tr>') == len(trained.inputs.history)


def test_few_classes_have_a_normalized_matrix_and_many_have_it_as_shades(
    trained: Written, swept: Written
):
    assert trained.page.count('aria-label="Confusion matrix, normalized"') == 1
    assert 'aria-label="Confusion matrix, normalized"' not in swept.page
    assert "shade is the share of the label's rows" in swept.page


def test_a_sweeps_page_lists_trials_and_marks_what_was_stopped(swept: Written):
    page = swept.page
    assert page.count('<span class="state ">stopped early</span>') == sum(
        trial["state"] == "stopped early" for trial in swept.content["trials"]
    )
    assert "the loss is not finite (nan) at step 12" in page
    assert "superclass top-1" in page
    assert "where asha may stop a trial (epoch 3, 9)" in page


def test_a_job_that_took_its_fields_from_a_sweep_says_so(tmp_path: Path):
    source = {"run_id": "tune-digits-1", "trial_id": "00016", "params": {"optimizer.lr": 0.005}}
    spec = report_samples.run_spec().model_copy(update={"best_of": source})
    content = write_report(tmp_path, report_samples.inputs(spec=spec))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert content["best_of"] == source
    assert "trial <strong>00016</strong> of <strong>tune-digits-1</strong>" in page
    assert "optimizer.lr 0.005" in page


def test_a_training_runs_page_has_no_sweep(trained: Written):
    assert 'id="sweep"' not in trained.page


def test_one_epoch_makes_a_page_that_says_why_there_is_no_throughput(tmp_path: Path):
    write_report(tmp_path, report_samples.inputs(epochs=1))
    assert "needs a second epoch" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_run_without_mistakes_makes_a_page_that_says_so(tmp_path: Path):
    perfect = report_samples.predictions(10, 50, 0.0)
    splits = dict.fromkeys(("train", "validation", "test"), perfect)
    write_report(tmp_path, report_samples.inputs(predictions=splits, mistakes=[]))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.lower().count("all test rows were predicted correctly") == 2


def test_classes_that_nothing_was_predicted_as_make_a_page(tmp_path: Path):
    ones = np.ones(4)
    test = report_samples.Predictions(np.arange(4), [0] * 4, [1] * 4, ones, ones, ones)
    splits = dict.fromkeys(("train", "validation", "test"), test)
    content = write_report(tmp_path, report_samples.inputs(predictions=splits, mistakes=[]))
    assert content["test"]["top1"] == 0.0
