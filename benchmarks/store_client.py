"""Seconds that clients of a bucket take: ours (boto3, verifying uploads), pyarrow's, and obstore.

    python -m benchmarks.store_client --store s3://bucket/prefix --endpoint URL [--n 5]

The keys come from the standard AWS variables. Sides alternate; prints medians and ratios. obstore
is a column where it is installed.
"""

import argparse
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cifarray.store import Store

ROWS, ROW_BYTES, GROUP_ROWS = 20_000, 3072, 1_250
"""61 MB as CIFAR's images are stored, in sixteen row groups."""
SMALL = 100
Task = Callable[[], None]


def rows() -> pa.Table:
    """Random images of 32 by 32 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, ROWS * ROW_BYTES, dtype=np.uint8)
    kind = pa.binary(ROW_BYTES)
    images = pa.FixedSizeBinaryArray.from_buffers(kind, ROWS, [None, pa.py_buffer(pixels)])
    return pa.table({"image": images, "row_id": np.arange(ROWS)})


def read_groups(source: Any) -> None:
    """Each row group separately, as a worker reads its shard."""
    parquet = pq.ParquetFile(source)
    for number in range(parquet.num_row_groups):
        parquet.read_row_group(number)


def ours(store: Store, file: Path) -> dict[str, Task]:
    """What cifarray does."""

    def small() -> None:
        for number in range(SMALL):
            store.write(f"ours/small/{number}", b"x" * 500)

    return {
        "upload": lambda: store.upload(file, "ours/part.parquet"),
        "read row groups": lambda: read_groups(store.open_input("part.parquet")),
        "small puts": small,
    }


def pyarrows(store: Store, file: Path) -> dict[str, Task]:
    """Pyarrow's S3 client, which loses the errors of a copy."""
    from pyarrow.fs import S3FileSystem, copy_files

    at = urlsplit(store.endpoint or "https://s3.amazonaws.com")
    filesystem = S3FileSystem(
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ.get("AWS_REGION", "us-east-1"),
        scheme=at.scheme,
        endpoint_override=at.netloc,
    )
    root = store.path()

    def small() -> None:
        for number in range(SMALL):
            with filesystem.open_output_stream(f"{root}/arrow/small/{number}") as stream:
                stream.write(b"x" * 500)

    def upload() -> None:
        copy_files(str(file), f"{root}/arrow/part.parquet", destination_filesystem=filesystem)

    return {
        "upload": upload,
        "read row groups": lambda: read_groups(filesystem.open_input_file(f"{root}/part.parquet")),
        "small puts": small,
    }


def obstores(store: Store, file: Path) -> dict[str, Task]:
    """object_store of Rust, by its Python package."""
    import obstore
    from obstore.fsspec import FsspecStore
    from obstore.store import S3Store

    bucket, _, prefix = store.path().partition("/")
    settings: dict[str, Any] = {
        "endpoint": store.endpoint,
        "access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
        "secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
        "region": os.environ.get("AWS_REGION", "us-east-1"),
        "client_options": {"allow_http": True},
    }
    bucket_store = S3Store(bucket, prefix=prefix, **settings)
    files = FsspecStore("s3", **settings)

    def small() -> None:
        for number in range(SMALL):
            obstore.put(bucket_store, f"obstore/small/{number}", b"x" * 500)

    return {
        "upload": lambda: obstore.put(bucket_store, "obstore/part.parquet", file),
        "read row groups": lambda: read_groups(files.open(f"{bucket}/{prefix}/part.parquet")),
        "small puts": small,
    }


def main() -> None:
    """Alternate the clients n times and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--n", type=int, default=5)
    options = parser.parse_args()
    store = Store.open(f"{options.store}/{secrets.token_hex(4)}", options.endpoint)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.parquet"
        pq.write_table(rows(), file, row_group_size=GROUP_ROWS, compression="zstd")
        store.upload(file, "part.parquet")
        sides = {"ours": ours(store, file), "pyarrow": pyarrows(store, file)}
        try:
            sides["obstore"] = obstores(store, file)
        except ImportError:
            print("obstore is not installed and is left out", file=sys.stderr)
        taken: dict[tuple[str, str], list[float]] = {}
        for _ in range(options.n):
            for task in sides["ours"]:
                for side, tasks in sides.items():
                    began = time.perf_counter()
                    tasks[task]()
                    taken.setdefault((task, side), []).append(time.perf_counter() - began)
        megabytes = file.stat().st_size / 1e6
    store.delete_folder("")
    print(f"n = {options.n}; the file has {megabytes:.0f} MB, {SMALL} small puts of 500 bytes")
    print("| task | client | median s | min | max | ours takes |")
    print("|---|---|---|---|---|---|")
    for (task, side), seconds in taken.items():
        median, mine = statistics.median(seconds), statistics.median(taken[task, "ours"])
        print(
            f"| {task} | {side} | {median:.2f} | {min(seconds):.2f} | {max(seconds):.2f} "
            f"| {mine / median:.2f} of its time |"
        )


if __name__ == "__main__":
    main()
