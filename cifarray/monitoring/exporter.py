"""An HTTP server that Prometheus scrapes for what a store's runs are doing."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from cifarray.errors import InputError
from cifarray.metrics import STORE
from cifarray.monitoring.store_watch import StoreWatch
from cifarray.store import Store

FAMILIES = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}


def export(
    store: Store,
    host: str,
    port: int,
    interval_s: float,
    stop: threading.Event,
    say: Callable[[str], None],
) -> None:
    """Serve until `stop` is set, reading the store at an interval. Port 0 takes a free one.

    Raises: InputError if nothing can listen there.
    """
    watch = StoreWatch(store, interval_s)

    def read() -> None:
        failing = False
        while not stop.is_set():
            error = watch.read()
            if error is not None and not failing:
                say(f"{error}; trying again every {interval_s:g} s")
            elif failing and error is None:
                say(f"{store.uri} can be read again")
            failing = error is not None
            stop.wait(interval_s)

    with _served(watch, host, port) as taken:
        say(f"serving http://{host}:{taken}/metrics of {store.uri}")
        # A daemon, so that a store that keeps it waiting holds up no end.
        threading.Thread(target=read, daemon=True, name=f"reading {store.uri}").start()
        stop.wait()


@contextmanager
def _served(watch: StoreWatch, host: str, port: int) -> Iterator[int]:
    registry = CollectorRegistry()
    registry.register(_StoreCollector(watch))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror}; give another --port or --host"
        ) from error
    assert isinstance(server, WSGIServer)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _StoreCollector(Collector):
    """Gives prometheus_client what was read last, with each metric as it is registered."""

    def __init__(self, watch: StoreWatch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        families = {
            name: FAMILIES[metric.kind](name, metric.help, labels=metric.labels)
            for name, metric in STORE.items()
        }
        for sample in self._watch.samples:
            values = [sample.labels[label] for label in STORE[sample.name].labels]
            families[sample.name].add_metric(values, sample.value)
        yield from families.values()
