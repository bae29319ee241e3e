"""The pickle reader: what CIFAR files hold is read, anything else is refused."""

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifarray.data.readers.cifar_pickle import PickledArray, as_text, read_pickle
from cifarray.errors import ArchiveError
from tests.archives import Style, dump

BATCH = {
    "filenames": ["a_s_000001.png", "b_s_000002.png"] * 300,
    "batch_label": "training batch 1 of 1, é",
    "fine_labels": [0, 99, 255, 256, 65535, 65536, -1],
    "data": np.arange(600, dtype=np.uint8).reshape(2, 300),
    "nothing": None,
    "yes": True,
}
STYLES = [("python2", 2), *(("numpy2", protocol) for protocol in (2, 3, 4, 5))]


def read(data: bytes, max_opcodes: int = 10_000) -> Any:
    return read_pickle(data, max_opcodes=max_opcodes)


@pytest.mark.parametrize(("style", "protocol"), STYLES)
def test_what_any_python_wrote_is_read_back(style: Style, protocol: int) -> None:
    batch = read(dump(BATCH, style, protocol))
    assert list(batch) == list(BATCH)
    assert [as_text(name) for name in batch["filenames"]] == BATCH["filenames"]
    assert as_text(batch["batch_label"]) == BATCH["batch_label"]
    assert batch["fine_labels"] == BATCH["fine_labels"]
    assert np.array_equal(batch["data"].values, BATCH["data"])
    assert batch["nothing"] is None
    assert batch["yes"] is True


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_column_major_arrays_keep_their_meaning(protocol: int) -> None:
    array = np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    read_back = read(pickle.dumps({"data": array}, protocol=protocol))["data"].values
    assert np.array_equal(read_back, array)


def test_our_python2_writer_writes_what_python2_wrote() -> None:
    data = dump({"labels": [6, 300], "data": np.array([[1, 2], [3, 4]], dtype=np.uint8)})
    loaded = pickle.loads(data, encoding="bytes")
    assert loaded[b"labels"] == [6, 300]
    assert np.array_equal(loaded[b"data"], [[1, 2], [3, 4]])
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in data


class Calls:
    """Pickles as a call of whatever it is given."""

    def __init__(self, called: Any, *arguments: Any) -> None:
        self.call = (called, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "called", [eval, exec, print, open, __import__, getattr, np.load, np.fromfile, pickle.loads]
)
def test_no_function_that_a_pickle_names_is_called(
    called: Any, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"data": Calls(called, "touched", "w")}, protocol=protocol)
    with pytest.raises(ArchiveError, match="refused as malicious"):
        read(data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x80\x02cos\nsystem\nU\x04true\x85R.", "asks for 'os.system'"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "asks for 'numpy.core"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "asks for 'os.system'"),
        (b"\x80\x02(U\x04trueios\nsystem\n.", "opcode 0x69"),
        (b"\x80\x02(cnumpy\ndtype\nU\x02u1o.", "opcode 0x6f"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "opcode 0x81"),
        (b"\x80\x02U\x01xQ.", "opcode 0x51"),
        (b"\x80\x02\x82\x01.", "opcode 0x82"),
        (b"\x80\x05\x97.", "opcode 0x97"),
        (b"\x80\x02cnumpy\nndarray\n(K\x09tR.", "calls something that no CIFAR file calls"),
        (b"\x80\x02}K\x01\x85R.", "calls something that no CIFAR file calls"),
        (b"\x80\x02cnumpy\nndarray\n}U\x01aU\x01bsb.", "fills something that is not an array"),
        (b"\x80\x02}}U\x01aU\x01bsb.", "fills something that is not an array"),
        (b"(dp0\nS'data'\np1\nI1\ns.", "opcode 0x64"),
        (b"hello", "truncated or damaged"),
        (b"", "truncated or damaged"),
        (b"\x80\x02.", "truncated or damaged"),
        (b"\x80\x02h\x05.", "truncated or damaged"),
        (b"\x80\x02t.", "truncated or damaged"),
        (b"\x80\x02]K\x01]s.", "truncated or damaged"),
        (b"\x80\x02}]K\x01s.", "truncated or damaged"),
        (b"\x80\x02K\x01K\x02a.", "truncated or damaged"),
        (b"\x80\x02c" + b"a" * 1000 + b"\nb\n.", "truncated or damaged"),
    ],
)
def test_other_pickles_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ArchiveError, match=reason):
        read(data)


@pytest.mark.parametrize("dtype", ["O", "f8", "i8", "V8", "U4", "M8[s]"])
def test_only_uint8_arrays_are_read(dtype: str) -> None:
    data = pickle.dumps({"data": np.zeros(2, dtype=dtype)}, protocol=2)
    with pytest.raises(ArchiveError, match="only uint8 is allowed"):
        read(data)


@pytest.mark.parametrize(
    "shape", [(10**10, 3072), (2, 3), (2**31, 2**31, 2**31), (1,) * 5, (-1, -4), (True, 4)]
)
def test_a_shape_that_its_bytes_do_not_fill_is_refused(shape: tuple[int, ...]) -> None:
    data = pickle.dumps({"data": np.zeros(4, dtype=np.uint8)}, protocol=2)
    right = b"(K\x01K\x04\x85"
    assert right in data
    wrong = pickle.dumps(shape, protocol=2)[2:-1]
    with pytest.raises(
        ArchiveError, match=r"declares an array of \d+ bytes but contains 4|truncated or damaged"
    ):
        read(data.replace(right, b"(K\x01" + wrong))


@pytest.mark.parametrize(
    "bomb",
    [
        b"B\xff\xff\xff\xff",
        b"T\xff\xff\xff\x7f",
        b"T\xff\xff\xff\xff",
        b"\x8e" + struct.pack("<Q", 1 << 40),
        b"X\xff\xff\xff\xff",
        b"\x95" + struct.pack("<Q", 1 << 40),
    ],
)
def test_declared_lengths_reserve_nothing(bomb: bytes) -> None:
    with pytest.raises(ArchiveError, match="truncated"):
        read(b"\x80\x04" + bomb)


def test_a_memo_of_four_billion_places_reserves_nothing() -> None:
    assert read(b"\x80\x02K\x07r\xff\xff\xff\xff.") == 7


def test_more_opcodes_than_the_file_needs_are_refused() -> None:
    with pytest.raises(ArchiveError, match="more than the 1000 opcodes"):
        read(b"\x80\x02" + b"}" * 1000 + b".", max_opcodes=1000)


def test_encoding_one_text_again_and_again_is_refused() -> None:
    encode = b"c_codecs\nencode\nX" + struct.pack("<I", 1000) + b"x" * 1000 + b"q\x00"
    encode += b"X\x06\x00\x00\x00latin1q\x01\x86R"
    again = b"c_codecs\nencode\nh\x00h\x01\x86R"
    with pytest.raises(ArchiveError, match="more bytes than it contains"):
        read(b"\x80\x02(" + encode + again * 5 + b"t.")


def test_nested_tuples_cannot_stall_the_reader() -> None:
    nested = b"K\x01" + b"q\x00h\x00\x86" * 100
    with pytest.raises(ArchiveError):
        read(b"\x80\x02}" + nested + b"K\x01s.")
    with pytest.raises(ArchiveError):
        read(b"\x80\x02" + nested + b"\x85R.")


def test_any_prefix_of_a_pickle_is_one_sentence() -> None:
    data = dump({"labels": [1, 2, 300], "data": np.zeros((2, 3), dtype=np.uint8)})
    for end in range(len(data)):
        with pytest.raises(ArchiveError):
            read(data[:end])


def test_an_array_that_is_never_filled_has_no_values() -> None:
    data = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R."
    array = read(data)
    assert isinstance(array, PickledArray)
    assert array.values is None
