"""Seeded changes of bytes, texts and plain values: what a disk, a stranger or an attacker does."""

import copy
import random
from collections.abc import Callable
from typing import Any

ODD_BYTES = (
    *(b"\0", b"\xff", b"\xff\xfe", b"\n", b"\r\n", b"%s%n", b"../" * 20, b"\x1b[2J"),
    *(b"-1", b"0", b"1e999", b"NaN", b"9" * 40, b"0x" + b"f" * 6000, "\u202e\u2028".encode()),
    *(b"[" * 3000, b"{" * 500, b'{"a":' * 2000, b"(" * 500, b"&a [*a]", b"!!timestamp x"),
)
ODD_TEXTS = (
    *("", " ", "x", "\0", "\n", "a\nb", "../../etc/passwd", "/dev/zero", "x" * 5000, "\u202eabc"),
    *("\ud800", "none", "null", "true", "1", "-1", "1e999", "nan", "2026-99-99", "run:", "s3://"),
    *("http://127.0.0.1:9/", "os:system", "subprocess:run", "timm/nosuch", "resnet18", "\x1b[31m"),
)
ODD_NUMBERS = (
    *(0, 1, -1, 2, 7, 255, 256, 65_536, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, 10**30),
    *(0.5, -0.5, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"), True, False),
)


class Mutator:
    """Changes whatever it is given; the same seed gives the same changes."""

    def __init__(self, seed: object) -> None:
        self.draw = random.Random(str(seed))

    def data(self, content: bytes) -> bytes:
        """Other bytes: one to four changes at random places."""
        for _ in range(self.draw.choice((1, 1, 2, 4))):
            content = self.draw.choice(BYTE_CHANGES)(self.draw, content)
        return content

    def text(self, content: str) -> str:
        """Another text, changed as bytes are; what is no UTF-8 any more becomes what shows it."""
        return self.data(content.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")

    def value(self, tree: Any) -> Any:
        """A copy of a plain value with one to three changes somewhere in it."""
        tree = copy.deepcopy(tree)
        for _ in range(self.draw.choice((1, 1, 2, 3))):
            tree = self._changed(tree)
        return tree

    def odd(self, value: Any = None) -> Any:
        """A value of another kind, or one of the same at the edge of what is sound."""
        options: list[Callable[[], Any]] = [
            lambda: None,
            lambda: self.draw.choice(ODD_NUMBERS),
            lambda: self.draw.choice(ODD_TEXTS),
            lambda: self.draw.choice(([], {}, [None], {"a": 1}, [[[]]], {"": {}}, ["x", 1])),
            lambda: [value] * self.draw.choice((2, 50)),
            lambda: {"a": value},
            lambda: _nested(self.draw.choice((5, 150, 200))),
        ]
        if isinstance(value, int | float) and not isinstance(value, bool):
            options += [lambda: -value, lambda: value + 1, lambda: value * 1000, lambda: str(value)]
        if isinstance(value, str):
            options += [lambda: self.text(value), lambda: value * 100, lambda: value[:-1]]
        return self.draw.choice(options)()

    def _changed(self, tree: Any) -> Any:
        if isinstance(tree, dict) and tree and self.draw.random() < 0.9:
            key = self.draw.choice(list(tree))
            match self.draw.randrange(8):
                case 0:
                    del tree[key]
                case 1:
                    tree[self.draw.choice(ODD_TEXTS)] = tree[key]
                case 2:
                    tree[key] = self.odd(tree[key])
                case _:
                    tree[key] = self._changed(tree[key])
            return tree
        if isinstance(tree, list | tuple) and tree and self.draw.random() < 0.9:
            items, place = list(tree), self.draw.randrange(len(tree))
            match self.draw.randrange(8):
                case 0:
                    del items[place]
                case 1:
                    items.insert(place, items[place])
                case 2:
                    items[place] = self.odd(items[place])
                case _:
                    items[place] = self._changed(items[place])
            return type(tree)(items) if type(tree) in (list, tuple) else items
        return self.odd(tree)


def _nested(levels: int) -> Any:
    value: Any = 0
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def _place(draw: random.Random, content: bytes) -> int:
    """More often near the front, where headers are."""
    return draw.randrange(min(len(content), draw.choice((64, 4096, 1 << 30))) + 1)


def _flip(draw: random.Random, content: bytes) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(draw.choice((1, 1, 3, 20))):
        changed[min(_place(draw, content), len(changed) - 1)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _overwrite(draw: random.Random, content: bytes) -> bytes:
    place, size = _place(draw, content), draw.choice((1, 2, 4, 8))
    fill = draw.choice((b"\0", b"\xff", b"\x7f", draw.randbytes(1))) * size
    return content[:place] + fill + content[place + size :]


def _insert(draw: random.Random, content: bytes) -> bytes:
    place = _place(draw, content)
    return content[:place] + draw.choice(ODD_BYTES) + content[place:]


def _cut(draw: random.Random, content: bytes) -> bytes:
    return content[: _place(draw, content)]


def _leave_out(draw: random.Random, content: bytes) -> bytes:
    place = _place(draw, content)
    return content[:place] + content[place + draw.choice((1, 4, 100)) :]


def _repeat(draw: random.Random, content: bytes) -> bytes:
    place = _place(draw, content)
    return content[:place] + content[place : place + 200] * draw.choice((2, 30)) + content[place:]


BYTE_CHANGES = (_flip, _flip, _overwrite, _overwrite, _insert, _cut, _leave_out, _repeat)
