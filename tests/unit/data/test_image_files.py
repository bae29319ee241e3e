"""Image files are opened in one place, within limits that their headers are checked against."""

import ast
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cifarray
from cifarray.data.decode import FORMATS, MOST_BYTES, MOST_PIXELS, decode, decode_file
from cifarray.errors import InputError
from cifarray.inference.predict import read_image
from tests.image_archives import encoded, picture

SHAPE = (8, 8, 3)
MOST_MEMORY_MB = 1000


def bomb(width: int, height: int, pixels: bytes = bytes(1 << 10)) -> bytes:
    """A gray PNG file that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(pixels)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def tiff(width: int, height: int, **tags: int) -> bytes:
    """An uncompressed gray TIFF of few bytes whose tags say what they like."""
    numbers = {"tile_width": 322, "tile_height": 323, "rows": 278, "offsets": 324, "counts": 325}
    fields = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1}
    fields |= {numbers[name]: value for name, value in tags.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, fields[tag]) for tag in sorted(fields))
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + bytes(1000)


def progressive(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    content = encoded(picture(0, 0, (64, 64)), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + content[-2:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "its bytes are not an image of JPEG, PNG"),
        (b"GIF89a", "its bytes are not an image of JPEG, PNG"),
        (encoded(picture(0, 0), "ICO"), "its bytes are not an image of JPEG, PNG"),
        (encoded(picture(0, 0), "PDF"), "its bytes are not an image of JPEG, PNG"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "its bytes are not an image of JPEG",
        ),
        (encoded(picture(0, 0, (64, 64)), "JPEG")[:700], "truncated"),
        (encoded(picture(0, 0, (64, 64)))[:500], "truncated|broken"),
        (bomb(7072, 7072), f"it has 7072x7072 pixels; at most {MOST_PIXELS} are allowed, so sca"),
        (bomb(60_000, 60_000), f"it has 3600000000 pixels; at most {MOST_PIXELS} are allowed"),
        (bomb(100, 100), "truncated|broken"),
        (
            tiff(10, 10, tile_width=9000, tile_height=9000, offsets=200, counts=900),
            "it has tiles of 9000x9000 pixels; at most",
        ),
        (progressive(200), "it has more than 100 scans"),
    ],
)
def test_what_is_no_sound_image_says_why(content: bytes, reason: str):
    with pytest.raises(ValueError, match=reason) as caught:
        decode_file(content)
    assert "\n" not in str(caught.value)


def test_the_files_that_are_refused_for_their_size_are_read_below_it():
    assert decode(bomb(20, 20, bytes(21 * 20))).size == (20, 20)
    assert decode(progressive(20)).size == (64, 64)


@pytest.mark.parametrize("form", FORMATS)
def test_every_admitted_format_is_read_alike_by_predict_and_for_a_dataset(
    form: str, tmp_path: Path
):
    content = encoded(picture(1, 0, (8, 8)), form)
    (tmp_path / "a.file").write_bytes(content)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.array_equal(np.asarray(decode_file(content).image), expected)
    assert np.array_equal(read_image(str(tmp_path / "a.file"), SHAPE).pixels_HWC, expected)


def test_what_is_no_plain_file_and_a_file_too_large_are_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(
        InputError, match=r"fifo cannot be read as an image \(it is not a regular file"
    ):
        read_image(str(tmp_path / "fifo"), SHAPE)
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(InputError, match=rf"it has {MOST_BYTES + 1} bytes; at most {MOST_BYTES} a"):
        read_image(str(tmp_path / "large.png"), SHAPE)


@pytest.mark.parametrize(("side", "outcome"), [(13_300, "at most"), (5_000, "resized from 5000")])
def test_the_memory_that_a_small_file_takes_is_bounded(side: int, outcome: str, tmp_path: Path):
    """A process of its own tells what it held at most, torch included, as predict does."""
    (tmp_path / "bomb.png").write_bytes(bomb(side, side, bytes((side + 1) * side)))
    code = (
        "import pathlib, sys, torch\n"
        "from cifarray.inference.predict import read_image\n"
        "try:\n"
        "    print(read_image(sys.argv[1], (32, 32, 3)).changes)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
        "print(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "bomb.png")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    said, most_kb = done.stdout.splitlines()
    assert outcome in said
    assert int(most_kb) < MOST_MEMORY_MB << 10


def test_no_other_module_opens_image_files():
    package = Path(cifarray.__file__).parent
    openers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open")
    }
    assert openers == {"data/decode.py"}
