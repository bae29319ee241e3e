"""Downloads: resumed where they were cut, checked, and bounded in tries and size."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cifarray.data.download import Download, download, shown
from cifarray.data.progress import Silent
from cifarray.errors import ArchiveError
from tests.archive_server import ArchiveServer
from tests.loopback import black_hole

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()
PAUSES_S = (0.0, 0.0)

Wanted = Callable[..., Download]


class Recorded:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int | None]] = []
        self.done = 0

    def start(self, description: str, total: int | None, unit: str) -> None:
        self.started.append((description, total))
        self.done = 0

    def advance(self, amount: int) -> None:
        self.done += amount


@pytest.fixture
def wanted(server: ArchiveServer, tmp_path: Path) -> Wanted:
    server.files["a.tar.gz"] = CONTENT

    def make(md5: str | None = MD5, limit_bytes: int = len(CONTENT)) -> Download:
        target = tmp_path / "cache" / "a.tar.gz"
        return Download(server.url("a.tar.gz"), target, limit_bytes, md5, PAUSES_S)

    return make


def test_a_file_is_fetched_with_progress_and_kept(server: ArchiveServer, wanted: Wanted) -> None:
    progress = Recorded()
    assert download(wanted(), progress).read_bytes() == CONTENT
    assert progress.started[-1] == ("downloading a.tar.gz", len(CONTENT))
    assert progress.done == len(CONTENT)
    download(wanted(), Silent())
    assert len(server.asked) == 1


def test_a_cut_download_goes_on_where_it_ended(server: ArchiveServer, wanted: Wanted) -> None:
    server.cuts = [300_000, 200_000]
    assert download(wanted(), Silent()).read_bytes() == CONTENT
    assert [asked.get("Range") for asked in server.asked] == [
        None,
        "bytes=300000-",
        "bytes=500000-",
    ]


def test_a_later_command_goes_on_where_the_last_one_gave_up(
    server: ArchiveServer, wanted: Wanted
) -> None:
    server.cuts = [300_000, 0, 0]
    with pytest.raises(ArchiveError, match="resumes after 300000 bytes"):
        download(wanted(), Silent())
    progress = Recorded()
    download(wanted(), progress)
    assert server.asked[-1]["Range"] == "bytes=300000-"
    assert progress.done == len(CONTENT)


def test_a_server_that_ignores_ranges_is_read_from_the_start(
    server: ArchiveServer, wanted: Wanted
) -> None:
    server.ranges = False
    server.cuts = [300_000]
    assert download(wanted(), Silent()).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_file_that_changed_meanwhile_is_not_mixed(server: ArchiveServer, wanted: Wanted) -> None:
    server.etags["a.tar.gz"] = '"one"'
    server.cuts = [300_000, 0, 0]
    with pytest.raises(ArchiveError):
        download(wanted(md5=None), Silent())
    server.files["a.tar.gz"] = CONTENT[::-1]
    server.etags["a.tar.gz"] = '"two"'
    assert download(wanted(md5=None), Silent()).read_bytes() == CONTENT[::-1]
    assert server.asked[-1]["If-Range"] == '"one"'


def test_a_part_without_checksum_or_version_is_not_resumed(
    server: ArchiveServer, wanted: Wanted
) -> None:
    server.cuts = [300_000]
    assert download(wanted(md5=None), Silent()).read_bytes() == CONTENT
    assert "Range" not in server.asked[1]


def test_a_kept_file_of_another_address_is_fetched_anew_only_when_it_changed(
    server: ArchiveServer, wanted: Wanted
) -> None:
    server.etags["a.tar.gz"] = '"one"'
    download(wanted(md5=None), Silent())
    assert download(wanted(md5=None), Silent()).read_bytes() == CONTENT
    assert server.asked[-1]["If-None-Match"] == '"one"'
    server.files["a.tar.gz"], server.etags["a.tar.gz"] = b"new", '"two"'
    assert download(wanted(md5=None), Silent()).read_bytes() == b"new"


def test_a_part_that_is_whole_already_is_taken(server: ArchiveServer, wanted: Wanted) -> None:
    part = wanted().part
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert download(wanted(), Silent()).read_bytes() == CONTENT
    part.write_bytes(CONTENT + b"of another file")
    wanted().target.unlink()
    assert download(wanted(), Silent()).read_bytes() == CONTENT


def test_an_answer_of_unknown_length_is_read_to_its_end(
    server: ArchiveServer, wanted: Wanted
) -> None:
    server.lengths = False
    assert download(wanted(), Silent()).read_bytes() == CONTENT


def test_a_wrong_md5_is_refused_and_the_file_removed(server: ArchiveServer, wanted: Wanted) -> None:
    server.files["a.tar.gz"] = CONTENT[::-1]
    with pytest.raises(ArchiveError, match=f"but {MD5} was published; the file was removed"):
        download(wanted(), Silent())
    assert not wanted().target.exists()
    server.files["a.tar.gz"] = CONTENT
    assert download(wanted(), Silent()).read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_fetched_anew(wanted: Wanted) -> None:
    wanted().target.parent.mkdir(parents=True)
    wanted().target.write_bytes(b"damaged")
    assert download(wanted(), Silent()).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [500, 503])
def test_a_server_in_trouble_is_asked_again(
    server: ArchiveServer, wanted: Wanted, code: int
) -> None:
    server.statuses = [code]
    assert download(wanted(), Silent()).read_bytes() == CONTENT


def test_tries_are_bounded(server: ArchiveServer, wanted: Wanted) -> None:
    server.statuses = [503] * 100
    with pytest.raises(ArchiveError, match=r"cannot be downloaded \(503"):
        download(wanted(), Silent())
    assert len(server.asked) == 1 + len(PAUSES_S)
    server.statuses.clear()


def test_a_missing_file_is_not_asked_for_twice(server: ArchiveServer, wanted: Wanted) -> None:
    server.files.clear()
    with pytest.raises(ArchiveError, match="answers 404 Not Found; give a path or another"):
        download(wanted(), Silent())
    assert len(server.asked) == 1


def test_nobody_listening_is_one_sentence(tmp_path: Path) -> None:
    wanted = Download("http://127.0.0.1:9/a", tmp_path / "a", 10, None, (0.0,))
    with pytest.raises(ArchiveError, match=r"cannot be downloaded \(Connection refused\)"):
        download(wanted, Silent())


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with black_hole() as address:
        wanted = Download(f"{address}/a", tmp_path / "a", 10, None, (0.0,), timeout_s=0.1)
        with pytest.raises(ArchiveError, match=r"cannot be downloaded \(timed out\)"):
            download(wanted, Silent())


def test_what_a_server_says_cannot_steer_a_terminal(server: ArchiveServer, wanted: Wanted) -> None:
    server.statuses, server.reason = [404], "\x1b[2Jgone"
    with pytest.raises(ArchiveError, match=r"answers 404 \[2Jgone;"):
        download(wanted(), Silent())


@pytest.mark.parametrize("lengths", [True, False])
def test_more_than_the_archive_may_have_is_refused(
    server: ArchiveServer, wanted: Wanted, lengths: bool
) -> None:
    server.lengths = lengths
    with pytest.raises(ArchiveError, match="larger than the 1000 bytes"):
        download(wanted(limit_bytes=1000), Silent())
    assert not wanted().part.exists()


def test_a_tag_that_no_request_can_carry_is_not_used(server: ArchiveServer, wanted: Wanted) -> None:
    server.etags["a.tar.gz"] = '"\xe9"'
    server.cuts = [300_000]
    assert download(wanted(), Silent()).read_bytes() == CONTENT
    assert "If-Range" not in server.asked[1]


def test_an_address_with_a_port_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"http://host:port/a cannot be asked \(.*[Pp]ort"):
        download(Download("http://host:port/a", tmp_path / "a", 10), Silent())


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a", "http://", "http://["])
def test_only_http_addresses_are_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="is not an http or https address"):
        download(Download(url, tmp_path / "a", 10), Silent())


def test_a_cache_that_cannot_be_written_is_one_sentence(
    server: ArchiveServer, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("no folder")
    wanted = Download(server.url("a"), tmp_path / "cache" / "a", 10)
    with pytest.raises(ArchiveError, match="set CIFARRAY_CACHE to a folder with enough space"):
        download(wanted, Silent())


def test_what_may_be_secret_is_not_shown() -> None:
    assert shown("https://me:password@host/a.tar.gz?token=1#x") == "https://host/a.tar.gz"


def test_of_two_that_want_a_file_one_fetches_it(server: ArchiveServer, wanted: Wanted) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: download(wanted(), Silent()).read_bytes(), range(2)))
    assert both == [CONTENT, CONTENT]
    assert len(server.asked) == 1
