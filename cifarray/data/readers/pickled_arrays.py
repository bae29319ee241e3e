"""The few globals that a pickled uint8 array names, and what stands in for calling them."""

import enum
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifarray.errors import ArchiveError


class Global(enum.Enum):
    """A global that a pickled dictionary of uint8 arrays needs; it stands for itself."""

    RECONSTRUCT = "numpy.core.multiarray._reconstruct"
    FROMBUFFER = "numpy.core.numeric._frombuffer"
    NDARRAY = "numpy.ndarray"
    DTYPE = "numpy.dtype"
    ENCODE = "_codecs.encode"


GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): Global.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): Global.RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): Global.FROMBUFFER,
    ("numpy._core.numeric", "_frombuffer"): Global.FROMBUFFER,
    ("numpy", "ndarray"): Global.NDARRAY,
    ("numpy", "dtype"): Global.DTYPE,
    ("_codecs", "encode"): Global.ENCODE,
}
"""As NumPy 1 spelled them (Python 2's files do) and as NumPy 2 does."""


class Uint8:
    """The one dtype that is admitted."""


class PickledArray:
    """An array between its creation and the BUILD that fills it."""

    values: NDArray[np.uint8] | None = None

    def fill(self, state: Any) -> None:
        """Take ndarray's pickled state: version, shape, dtype, Fortran order, bytes."""
        _, shape, dtype, fortran, content = state
        self.values = view_as_array(content, shape, dtype, "F" if fortran else "C")


def as_text(value: Any) -> str:
    """A pickled string, Python 2's or Python 3's, as text."""
    if isinstance(value, bytes | memoryview):
        return str(value, "latin-1")
    if isinstance(value, str):
        return value
    raise TypeError(f"{type(value).__name__} is no string")


def view_as_array(content: Any, shape: Any, dtype: Any, order: str) -> NDArray[np.uint8]:
    """The bytes as a uint8 array of that shape, without a copy."""
    sizes = tuple(shape)
    if any(type(size) is not int or size < 0 for size in sizes) or len(sizes) > 4:
        raise ValueError("no shape of an array")
    if not isinstance(dtype, Uint8) or not isinstance(content, bytes | memoryview):
        raise TypeError("no uint8 array")
    declared = 1
    for size in sizes:
        declared *= size
    if declared != len(content):
        raise ArchiveError(
            f"the pickle declares an array of {declared} bytes and holds {len(content)}; "
            "fetch the archive again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(sizes, order="F" if order == "F" else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> PickledArray:
    if kind is not Global.NDARRAY:
        raise TypeError("only ndarray is reconstructed")
    return PickledArray()


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    array = PickledArray()
    array.values = view_as_array(content, shape, dtype, as_text(order))
    return array


def _dtype(code: Any, align: Any = False, copy: Any = True) -> Uint8:
    if as_text(code) not in ("u1", "|u1", "uint8"):
        raise ArchiveError(
            f"the pickle holds an array of dtype {as_text(code)[:20]!r}; only uint8 is admitted"
        )
    return Uint8()


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise TypeError("only text is encoded, and only in latin1")
    return text.encode("latin-1")


MAKERS: dict[Global, Callable[..., Any]] = {
    Global.RECONSTRUCT: _reconstruct,
    Global.FROMBUFFER: _frombuffer,
    Global.DTYPE: _dtype,
    Global.ENCODE: _encode,
}
"""What a REDUCE of each global makes."""
