"""Writes Grafana's dashboard from the registry of metrics: python scripts/dashboard.py"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifarray.monitoring.registry import Metric, scraped

PATH = Path(__file__).resolve().parents[1] / "k8s" / "components" / "monitoring" / "dashboard.json"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
VARIABLES = ("job_name", "run", "trial")
"""Labels by which a person chooses what is shown; each narrows down those behind it."""
UNITS = {
    "number": "short",
    "seconds": "s",
    "timestamp": "s",  # shown as the time since then
    "bytes": "bytes",
    "ratio": "percentunit",
    "images_per_second": "short",
}
WIDTH, HEIGHT, ACROSS = 8, 8, 24


@dataclass(frozen=True)
class Panel:
    """A graph of one metric over time, or its last values."""

    title: str
    metric: str
    kind: str = "timeseries"


ROWS: dict[str, tuple[Panel, ...]] = {
    "Runs": (
        Panel("Runs by state", "cifarray_runs", "stat"),
        Panel("Best value of the job's metric", "cifarray_run_best"),
        Panel("Epochs, over all trials", "cifarray_run_epochs"),
        Panel("Silence of the driver", "cifarray_run_heartbeat_age_seconds"),
        Panel("Attempts", "cifarray_run_attempts"),
        Panel("Loss is not a number", "cifarray_run_loss_is_nan"),
        Panel("GPU time of a run", "cifarray_run_gpu_seconds"),
        Panel("GPU time of a job", "cifarray_job_gpu_seconds"),
        Panel("Since a job's success", "cifarray_job_last_success_timestamp_seconds", "stat"),
    ),
    "Training": (
        Panel("Loss", "ray_cifarray_loss"),
        Panel("Top-1", "ray_cifarray_top1_ratio"),
        Panel("Learning rate", "ray_cifarray_learning_rate"),
        Panel("Epoch", "ray_cifarray_epoch"),
        Panel("Step", "ray_cifarray_step"),
        Panel("Epochs whose loss was not a number", "ray_cifarray_nan_epochs"),
    ),
    "Speed": (
        Panel("Images per second", "ray_cifarray_images_per_second"),
        Panel("Waiting for data", "ray_cifarray_data_wait_ratio"),
        Panel("GPU memory of the first worker", "ray_cifarray_gpu_memory_bytes"),
        Panel("Time of an epoch", "ray_cifarray_epoch_seconds"),
        Panel("Time to keep a checkpoint", "ray_cifarray_checkpoint_seconds"),
        Panel("Age of the last checkpoint", "ray_cifarray_checkpoint_age_seconds"),
    ),
    "Store": (
        Panel("Store can be read", "cifarray_store_up", "stat"),
        Panel("Time to read it", "cifarray_store_read_seconds"),
        Panel("Failed reads in 5 minutes", "cifarray_store_read_errors_total"),
        Panel("Since the last reading", "cifarray_store_last_read_timestamp_seconds", "stat"),
    ),
}


def expression(name: str, metric: Metric) -> str:
    """The PromQL of a metric; one series per set of labels, whichever pod they come from."""
    chosen = ", ".join(f'{label}=~"${label}"' for label in VARIABLES if label in metric.labels)
    series = f"{name}{{{chosen}}}" if chosen else name
    if metric.kind == "counter":
        series = f"increase({series}[5m])"
    by = f" by ({', '.join(metric.labels)})" if metric.labels else ""
    largest = f"max{by} ({series})"
    return f"time() - {largest}" if metric.unit == "timestamp" else largest


def panel_json(number: int, panel: Panel, at: tuple[int, int]) -> dict[str, Any]:
    """A panel as Grafana takes it. Raises: KeyError for a metric that is not registered."""
    metric = scraped()[panel.metric]
    shown = [label for label in metric.labels if label != "job_name" or "run" not in metric.labels]
    target = {
        "refId": "A",
        "datasource": DATASOURCE,
        "expr": expression(panel.metric, metric),
        "legendFormat": " ".join(f"{{{{{label}}}}}" for label in shown) or panel.title,
    }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": f"{metric.help}.",
        "datasource": DATASOURCE,
        "gridPos": {"x": at[0], "y": at[1], "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": UNITS[metric.unit]}, "overrides": []},
        "targets": [target],
    }


def variable_json(label: str, before: tuple[str, ...]) -> dict[str, Any]:
    """A choice among the values that a label has, given what is chosen before it."""
    source = "ray_cifarray_checkpoint_age_seconds" if label == "trial" else "cifarray_run_attempts"
    known = scraped()[source].labels
    narrowed = ", ".join(f'{name}=~"${name}"' for name in before if name in known)
    return {
        "name": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": f"label_values({source}{{{narrowed}}}, {label})",
        "refresh": 2,  # when the time range changes
        "includeAll": True,
        "allValue": ".*",  # trials are absent outside sweeps
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard() -> dict[str, Any]:
    """The whole dashboard."""
    panels: list[dict[str, Any]] = []
    below = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": below, "w": ACROSS, "h": 1}
        header = {"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place}
        panels.append({**header, "collapsed": False, "panels": []})
        across = ACROSS // WIDTH
        for place_in_row, panel in enumerate(row):
            down, right = divmod(place_in_row, across)
            at = (right * WIDTH, below + 1 + down * HEIGHT)
            panels.append(panel_json(len(panels) + 1, panel, at))
        below += 1 + -(-len(row) // across) * HEIGHT
    variables = [variable_json(label, VARIABLES[:at]) for at, label in enumerate(VARIABLES)]
    source = {"name": "datasource", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "cifarray",
        "title": "cifarray",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source, *variables]},
        "panels": panels,
    }


def rendered() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(rendered(), encoding="utf-8")
