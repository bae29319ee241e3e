"""The image formats that a dataset is read from, by Pillow's names, and their files' suffixes.

The one home of both: what lists files, opens them and speaks of them asks here. PIL knows further
formats, such as EPS, that run other programs.
"""

from collections.abc import Mapping
from functools import cache

SUFFIXES_OF: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
FORMATS = tuple(SUFFIXES_OF)
"""What an archive may hold; of an image of several frames, the first is read."""
STORED_FORMATS = ("JPEG", "PNG")
"""What a dataset stores, so that every reader of it decodes alike; the others become PNG."""
SUFFIXES = tuple(suffix for suffixes in SUFFIXES_OF.values() for suffix in suffixes)
SPOKEN = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or PPM"


@cache
def readable(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Those that the installed Pillow has a reader for: older ones lack AVIF's."""
    from PIL import Image

    Image.init()
    return tuple(name for name in formats if name in Image.OPEN)
