"""The command that serves metrics of a store's runs to Prometheus."""

import signal
import threading
from typing import Annotated

import typer

from cifarray.cli import output
from cifarray.cli.options import EndpointOption, QuietOption, StoreOption, open_store

PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on.")]
HostOption = Annotated[
    str, typer.Option("--host", help="Address to listen on; 0.0.0.0 is every interface.")
]
IntervalOption = Annotated[
    float, typer.Option("--interval", min=1.0, help="Seconds between two readings of the store.")
]


def exporter(
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    port: PortOption = 9808,
    host: HostOption = "127.0.0.1",
    interval: IntervalOption = 30.0,
    quiet: QuietOption = False,
) -> None:
    """Serve metrics of a store's runs to Prometheus, until SIGTERM or Ctrl-C.

    \b
    Example:  cifarray exporter --store s3://bucket/cifarray
    """
    from cifarray.monitoring.exporter import export

    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        export(open_store(store, endpoint), host, port, interval, stop, output.say)
    finally:
        signal.signal(signal.SIGTERM, before)
