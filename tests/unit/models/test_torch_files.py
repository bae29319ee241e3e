"""What torch.save wrote is read without running, unpacking or allocating more than it holds."""

import resource
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from cifarray.models.torch_files import read_torch_file

MOST_GROWTH_MB = 100


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path: Path, pickled: tuple[bytes, bytes], packed: bool = False) -> Path:
    """The file with a part of its pickle replaced, its members packed or not."""
    kept = members(path)
    name = next(name for name in kept if name.endswith("data.pkl"))
    old, new = pickled
    assert old in kept[name]
    kept[name] = kept[name].replace(old, new)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else 0) as archive:
        for member, content in kept.items():
            archive.writestr(member, content)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Eight numbers, as a state dict."""
    torch.save({"weight": torch.arange(8.0)}, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_tensors_and_plain_values_are_read_as_torch_reads_them(tmp_path: Path):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    value = {"model": network.state_dict(), "plain": [1, 2.5, None, True, "x", (3,)]}
    torch.save(value, tmp_path / "a.pt")
    found = read_torch_file(tmp_path / "a.pt")
    assert found["plain"] == value["plain"]
    for key, tensor in network.state_dict().items():
        assert torch.equal(found["model"][key], tensor)


def test_what_was_read_and_its_file_no_longer_depend_on_each_other(file: Path):
    found = read_torch_file(file)
    found["weight"].add_(1)
    assert torch.equal(read_torch_file(file)["weight"], torch.arange(8.0))
    file.write_bytes(b"")  # which ends the process where a tensor is still mapped
    assert torch.equal(found["weight"], torch.arange(1.0, 9.0))


def test_tensors_that_share_memory_share_it_again(tmp_path: Path):
    whole = torch.arange(6.0)
    torch.save({"whole": whole, "part": whole[2:4], "again": [whole]}, tmp_path / "a.pt")
    found = read_torch_file(tmp_path / "a.pt")
    found["whole"].zero_()
    assert torch.equal(found["part"], torch.zeros(2))
    assert torch.equal(found["again"][0], torch.zeros(6))


class Allocation:
    """Unpickling this takes as many bytes as it says."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (3 << 30,)


def test_a_file_that_asks_for_memory_gets_none(tmp_path: Path):
    torch.save({"weight": Allocation()}, tmp_path / "a.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"it names __builtin__\.bytearray, which is not a tensor"):
        read_torch_file(tmp_path / "a.pt")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH_MB << 10


def test_a_packed_member_is_refused(file: Path):
    with pytest.raises(
        ValueError, match=r"a member of the file is compressed, which torch\.save never does"
    ):
        read_torch_file(rewritten(file, (b"weight", b"weight"), packed=True))


def test_a_storage_that_claims_more_than_the_file_holds_reads_nothing_beyond_it(file: Path):
    size_bytes = file.stat().st_size
    found = read_torch_file(rewritten(file, (b"K\x08t", b"J\xff\xff\xff\x7ft")))
    assert found["weight"].untyped_storage().nbytes() < size_bytes


def test_a_tensor_that_claims_more_numbers_than_its_storage_is_refused(file: Path):
    with pytest.raises(ValueError, match="it is damaged, or contains more than tensors"):
        read_torch_file(rewritten(file, (b"K\x08\x85", b"J\xff\xff\xff\x7f\x85")))


def test_lists_that_share_their_parts_are_refused_before_anyone_writes_them_out(tmp_path: Path):
    value: list[Any] = [0] * 10
    for _ in range(30):
        value = [value] * 10
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="it expands to more than"):
        read_torch_file(tmp_path / "a.pt")


def test_lists_that_are_nested_too_deep_are_refused(tmp_path: Path):
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="it is nested more than 100 levels deep"):
        read_torch_file(tmp_path / "a.pt")
