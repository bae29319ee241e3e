"""Read the pickle of a CIFAR file: plain values and uint8 arrays, and nothing that could run code.

No opcode here calls what the file names: the few globals that such a file needs stand for
themselves, and arrays are views of bytes that lie in the file. What is built is bounded by the
file's own size and by `max_opcodes`. pickle.Unpickler with a narrow find_class would also run no
code, but a file of a few bytes makes it allocate gigabytes (one LONG_BINPUT sizes its memo).
"""

import enum
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifarray.errors import ArchiveError

STOP = ord(pickle.STOP)
LONGEST_NAME = 256


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
    raise TypeError(f"{type(value).__name__} is not a string")


def view_as_array(content: Any, shape: Any, dtype: Any, order: str) -> NDArray[np.uint8]:
    """The bytes as a uint8 array of that shape, without a copy."""
    sizes = tuple(shape)
    if any(type(size) is not int or size < 0 for size in sizes) or len(sizes) > 4:
        raise ValueError("not the shape of an array")
    if not isinstance(dtype, Uint8) or not isinstance(content, bytes | memoryview):
        raise TypeError("not a uint8 array")
    declared = 1
    for size in sizes:
        declared *= size
    if declared != len(content):
        raise ArchiveError(
            f"the pickle declares an array of {declared} bytes but contains {len(content)}; "
            "download the archive again"
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
            f"the pickle contains an array of dtype {as_text(code)[:20]!r}; only uint8 is allowed"
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


def read_pickle(data: bytes, *, max_opcodes: int) -> Any:
    """The value that the pickle holds; Python 2 strings come as bytes, arrays as PickledArray.

    Raises:
        ArchiveError: it is cut short, too long, or holds anything but plain values and arrays.
    """
    try:
        return PickleReader(data).read(max_opcodes)
    except (LookupError, TypeError, ValueError, struct.error) as error:
        raise ArchiveError(
            "the pickle is truncated or damaged; download the archive again"
        ) from error


class PickleReader:
    """A stack machine for those opcodes of protocols 2 to 5 that plain values and arrays use."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.at = 0
        self.stack: list[Any] = []
        self.below_marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.encodable = len(data)
        """How many bytes `_codecs.encode` may still make: no more than the file has itself."""

    def read(self, max_opcodes: int) -> Any:
        """Run opcodes up to STOP and return what they built."""
        for _ in range(max_opcodes):
            code = self.data[self.at]
            self.at += 1
            if code == STOP:
                return self.stack.pop()
            operation = OPERATIONS.get(code)
            if operation is None:
                raise ArchiveError(
                    f"the pickle uses opcode 0x{code:02x} at byte {self.at - 1}, which no CIFAR "
                    "file needs; it is refused"
                )
            operation(self)
        raise ArchiveError(
            f"the pickle has more than the {max_opcodes} opcodes that a CIFAR file needs"
        )

    def take(self, count: int) -> memoryview:
        """The next `count` bytes, which must be there."""
        if not 0 <= count <= len(self.data) - self.at:
            raise ValueError(f"{count} bytes are declared, {len(self.data) - self.at} are there")
        taken = self.data[self.at : self.at + count]
        self.at += count
        return taken

    def skip(self, count: int) -> None:
        """Pass over what only speeds up other readers: the protocol's number, a frame's length."""
        self.take(count)

    def number(self, layout: str) -> int:
        """The next number of a struct layout."""
        return int(struct.unpack(layout, self.take(struct.calcsize(layout)))[0])

    def long(self) -> int:
        """The next integer of any size, after its length in bytes."""
        return int.from_bytes(self.take(self.number("<B")), "little", signed=True)

    def text(self, length: str) -> str:
        """The next string in UTF-8, after its length."""
        return str(self.take(self.number(length)), "utf-8", "surrogatepass")

    def line(self) -> str:
        """The text up to the next newline, which GLOBAL writes after each of its two names."""
        end = bytes(self.data[self.at : self.at + LONGEST_NAME]).index(b"\n")
        return str(self.take(end + 1)[:-1], "latin-1")

    def mark(self) -> None:
        """MARK: what follows is collected apart."""
        self.below_marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        """Take everything above the last MARK."""
        items, self.stack = self.stack, self.below_marks.pop()
        return items

    def last(self, count: int) -> list[Any]:
        """Take the topmost values."""
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def append(self, items: list[Any]) -> None:
        """APPEND and APPENDS."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("append to something that is not a list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        """SETITEM and SETITEMS; keys are strings, since tuples can be made endless to hash."""
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError("set items of something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[as_text(key)] = value

    def find(self, module: str, name: str) -> None:
        """GLOBAL and STACK_GLOBAL: push one of the admitted globals."""
        found = GLOBALS.get((module, name))
        if found is None:
            raise ArchiveError(
                f"the pickle asks for {f'{module}.{name}'[:80]!r}, which no CIFAR file needs; "
                "it is refused as malicious"
            )
        self.stack.append(found)

    def reduce(self) -> None:
        """REDUCE: make what the admitted global would have made."""
        called, arguments = self.last(2)
        if not isinstance(called, Global) or called not in MAKERS:
            raise ArchiveError("the pickle calls something that no CIFAR file calls; it is refused")
        made = MAKERS[called](*arguments)
        if isinstance(made, bytes):
            self.encodable -= len(made)
            if self.encodable < 0:
                raise ArchiveError("the pickle creates more bytes than it contains; it is refused")
        self.stack.append(made)

    def build(self) -> None:
        """BUILD: fill an array; uint8 has nothing to fill in."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, PickledArray):
            target.fill(state)
        elif not isinstance(target, Uint8):
            raise ArchiveError("the pickle fills something that is not an array; it is refused")

    def put(self, index: int) -> None:
        """PUT and MEMOIZE: remember the topmost value."""
        self.memo[index] = self.stack[-1]


def _pushes(value: Callable[[PickleReader], Any]) -> Callable[[PickleReader], None]:
    """An operation that pushes what `value` reads."""

    def operation(reader: PickleReader) -> None:
        made = value(reader)  # first: it may replace the stack
        reader.stack.append(made)

    return operation


OPERATIONS: dict[int, Callable[[PickleReader], None]] = {
    ord(opcode): operation
    for opcode, operation in {
        pickle.PROTO: lambda r: r.skip(1),
        pickle.FRAME: lambda r: r.skip(8),
        pickle.MARK: PickleReader.mark,
        pickle.NONE: _pushes(lambda r: None),
        pickle.NEWTRUE: _pushes(lambda r: True),
        pickle.NEWFALSE: _pushes(lambda r: False),
        pickle.BININT: _pushes(lambda r: r.number("<i")),
        pickle.BININT1: _pushes(lambda r: r.number("<B")),
        pickle.BININT2: _pushes(lambda r: r.number("<H")),
        pickle.LONG1: _pushes(PickleReader.long),
        pickle.SHORT_BINSTRING: _pushes(lambda r: r.take(r.number("<B"))),
        pickle.BINSTRING: _pushes(lambda r: r.take(r.number("<i"))),
        pickle.SHORT_BINBYTES: _pushes(lambda r: r.take(r.number("<B"))),
        pickle.BINBYTES: _pushes(lambda r: r.take(r.number("<I"))),
        pickle.BINBYTES8: _pushes(lambda r: r.take(r.number("<Q"))),
        pickle.BYTEARRAY8: _pushes(lambda r: r.take(r.number("<Q"))),
        pickle.SHORT_BINUNICODE: _pushes(lambda r: r.text("<B")),
        pickle.BINUNICODE: _pushes(lambda r: r.text("<I")),
        pickle.BINUNICODE8: _pushes(lambda r: r.text("<Q")),
        pickle.EMPTY_DICT: _pushes(lambda r: {}),
        pickle.EMPTY_LIST: _pushes(lambda r: []),
        pickle.EMPTY_TUPLE: _pushes(lambda r: ()),
        pickle.TUPLE: _pushes(lambda r: tuple(r.since_mark())),
        pickle.TUPLE1: _pushes(lambda r: tuple(r.last(1))),
        pickle.TUPLE2: _pushes(lambda r: tuple(r.last(2))),
        pickle.TUPLE3: _pushes(lambda r: tuple(r.last(3))),
        pickle.APPEND: lambda r: r.append(r.last(1)),
        pickle.APPENDS: lambda r: r.append(r.since_mark()),
        pickle.SETITEM: lambda r: r.set_items(r.last(2)),
        pickle.SETITEMS: lambda r: r.set_items(r.since_mark()),
        pickle.BINPUT: lambda r: r.put(r.number("<B")),
        pickle.LONG_BINPUT: lambda r: r.put(r.number("<I")),
        pickle.MEMOIZE: lambda r: r.put(len(r.memo)),
        pickle.BINGET: _pushes(lambda r: r.memo[r.number("<B")]),
        pickle.LONG_BINGET: _pushes(lambda r: r.memo[r.number("<I")]),
        pickle.GLOBAL: lambda r: r.find(r.line(), r.line()),
        pickle.STACK_GLOBAL: lambda r: r.find(*map(as_text, r.last(2))),
        pickle.REDUCE: PickleReader.reduce,
        pickle.BUILD: PickleReader.build,
    }.items()
}
