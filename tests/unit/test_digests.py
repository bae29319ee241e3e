"""SHA-256 is the same of bytes, a text, a file and pieces, and no other module computes it."""

import ast
from pathlib import Path

import pytest

import cifarray
from cifarray.digests import content_sha256, file_sha256, pieces_sha256

OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""FIPS 180-2, appendix B.1."""
SHA256_USERS = {
    "digests.py",
    "data/shard.py",  # a seed from the raw bytes
    "data/source.py",  # with md5, in one pass over an archive
    "report/html.py",  # a script's digest in base64
}


def test_the_digest_is_that_of_the_standard(tmp_path: Path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    found = {content_sha256(b"abc"), content_sha256("abc"), file_sha256(path)}
    assert found | {pieces_sha256([b"a", b"", b"bc"])} == {OF_ABC}


@pytest.mark.parametrize("text", ["", "é"])
def test_a_text_is_digested_in_utf_8(text: str):
    assert content_sha256(text) == content_sha256(text.encode("utf-8"))


def test_no_other_module_computes_sha256():
    package = Path(cifarray.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("hashlib.sha256", "hashlib.file_digest")
        and "md5" not in ast.unparse(node)
    }
    assert found == SHA256_USERS
