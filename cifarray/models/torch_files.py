"""Reads files written by `torch.save` without executing code or allocating more than their size.

Torch's own safe loader runs no code, and yet believes what a file says of sizes: a packed member
unpacks to any length, a storage may claim more bytes than are there, and `bytearray` of a number
takes as much memory as the number says.
"""

import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cifarray.spec.bounds import refuse_unbounded

MOST_PICKLE_BYTES = 64 << 20
"""Of what a file says besides the numbers of its tensors; a ResNet-50's has about 40,000."""
MOST_VALUES = 4_000_000
"""In its containers: the random state of a rank has 1,300."""
GLOBALS = re.compile(r"collections OrderedDict|torch(\.\w+)* \w+")
"""That a pickle of tensors and plain values names; torch's loader admits few of torch's own."""


def read_torch_file(path: Path) -> Any:
    """The value in a file, with its tensors on the CPU.

    They are mapped from the file, so that none reaches beyond it, checked, and only then copied.

    Raises: ValueError for what holds more than tensors and plain values, or claims more than it
    holds; OSError.
    """
    try:
        _check_members(path)
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        refuse_unbounded(value, MOST_VALUES)
        _copy_storages(list(_mapped(value)), path.stat().st_size)
        return value
    except (OSError, ValueError):
        raise
    except Exception as error:  # torch's own message advises to let the file run code
        raise ValueError("it is damaged, or contains more than tensors and plain values") from error


def _check_members(path: Path) -> None:
    """Refuse a packed member, and a pickle that names anything but tensors' parts."""
    size_bytes = path.stat().st_size
    with zipfile.ZipFile(path) as members:
        entries = members.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("a member of the file is compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries) > size_bytes or members.comment:
            raise ValueError("its members claim more bytes than the file has")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                if entry.file_size > MOST_PICKLE_BYTES:
                    raise ValueError(
                        f"it contains more than {MOST_PICKLE_BYTES >> 20} MiB of values besides "
                        "tensors"
                    )
                _check_pickle(members.read(entry))


def _check_pickle(content: bytes) -> None:
    for operation, argument, _ in pickletools.genops(content):
        if operation.name == "GLOBAL" and not GLOBALS.fullmatch(str(argument)):
            raise ValueError(
                f"it names {str(argument).replace(' ', '.')[:80]}, which is not a tensor"
            )


def _mapped(value: Any) -> Iterator[Tensor]:
    """The tensors in a value that lie in the mapped file."""
    if isinstance(value, Tensor):
        if value.layout == torch.strided and not value.is_meta and not value.is_quantized:
            yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _mapped(part)


@torch.no_grad()
def _copy_storages(tensors: list[Tensor], size_bytes: int) -> None:
    """Put tensors into memory, which several may share as they share the file's.

    Raises: ValueError where they claim more than the file has.
    """
    shared = {_place(tensor): tensor.untyped_storage() for tensor in tensors}
    if sum(storage.nbytes() for storage in shared.values()) > size_bytes:
        raise ValueError("its tensors claim more bytes than the file has")
    copies = {place: storage.clone() for place, storage in shared.items()}
    for tensor in tensors:
        copy = copies.get(_place(tensor))
        if copy is not None:  # else the tensor occurs twice, and has its copy
            tensor.set_(copy, tensor.storage_offset(), tensor.shape, tensor.stride())


def _place(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()
