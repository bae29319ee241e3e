"""Writes Grafana's dashboard from the registry of metrics: python scripts/dashboard.py"""

import json
from pathlib import Path
from typing import Any

from cifarray.metrics import Metric, scraped

PATH = Path(__file__).resolve().parents[1] / "k8s" / "components" / "monitoring" / "dashboard.json"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
VARIABLES = ("job_name", "run", "trial")
"""Labels for the dashboard's filters; each narrows down the following ones."""
UNITS = {
    "number": "short",
    "seconds": "s",
    "timestamp": "s",  # shown as the time since then
    "bytes": "bytes",
    "ratio": "percentunit",
    "images_per_second": "short",
}
ROWS = ("Runs", "Training", "Speed", "Store")
WIDTH, HEIGHT, ACROSS = 8, 8, 24


def expression(name: str, metric: Metric) -> str:
    """The PromQL of a metric; one series per set of labels, whichever pod they come from."""
    chosen = ", ".join(f'{label}=~"${label}"' for label in VARIABLES if label in metric.labels)
    series = f"{name}{{{chosen}}}" if chosen else name
    if metric.kind == "counter":
        series = f"increase({series}[5m])"
    by = f" by ({', '.join(metric.labels)})" if metric.labels else ""
    largest = f"max{by} ({series})"
    return f"time() - {largest}" if metric.unit == "timestamp" else largest


def panel_json(number: int, name: str, metric: Metric, at: tuple[int, int]) -> dict[str, Any]:
    """A metric's panel in Grafana's format."""
    panel = metric.panel
    shown = [label for label in metric.labels if label != "job_name" or "run" not in metric.labels]
    target = {
        "refId": "A",
        "datasource": DATASOURCE,
        "expr": expression(name, metric),
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
    """A filter by a label's values, given the filters before it."""
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
    rows: dict[str, list[tuple[str, Metric]]] = {title: [] for title in ROWS}
    for name, metric in scraped().items():
        rows[metric.panel.row].append((name, metric))
    for title, row in rows.items():
        place = {"x": 0, "y": below, "w": ACROSS, "h": 1}
        header = {"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place}
        panels.append({**header, "collapsed": False, "panels": []})
        across = ACROSS // WIDTH
        for place_in_row, (name, metric) in enumerate(row):
            down, right = divmod(place_in_row, across)
            at = (right * WIDTH, below + 1 + down * HEIGHT)
            panels.append(panel_json(len(panels) + 1, name, metric, at))
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
