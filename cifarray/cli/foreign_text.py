"""Makes text from others safe to print: as one line, as a log, or inside JSON.

Whoever writes a record chooses its text. On a terminal an escape sequence moves the cursor, a
newline begins a line that looks like one of ours, and a bidirectional mark turns words around.
"""

import re
import unicodedata
from collections.abc import Callable

_STRING = r"\x1b[\]PX^_].*?(?:\x07|\x1b\\|\x9c|$)|[\x90\x98\x9d\x9e\x9f].*?(?:\x07|\x1b\\|\x9c|$)"
"""OSC, DCS, SOS, PM and APC with what they carry: titles, links, the clipboard."""
_CONTROL = r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
_SHORT = r"\x1b[ -/]*[0-~]"
_SEQUENCE = re.compile(f"{_STRING}|{_CONTROL}|{_SHORT}", re.MULTILINE)
_COLOR = re.compile(
    r"\x1b\[(?:(?:0?[0-4]|0?7|2[2-479]|39|49|[349][0-7]|10[0-7]|[34]8;5;\d{1,3}|[34]8;2(?:;\d{1,3}){3})"
    r"(?:;|(?=m)))*m"
)
"""Colors, bold and underlined text; nothing that hides text or blinks."""
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control and format characters, among them all bidirectional marks; lone surrogates; separators
of lines and paragraphs."""
RESET = "\x1b[0m"


class _Table(dict[int, str | int]):
    """For `str.translate`: what becomes of each character, found out when it first occurs."""

    def __init__(self, replace: Callable[[str], str], kept: str = "") -> None:
        super().__init__({ord(each): each for each in kept})
        self._replace = replace

    def __missing__(self, code: int) -> str | int:
        character = chr(code)
        unseen = unicodedata.category(character) in _UNSEEN
        self[code] = self._replace(character) if unseen else code
        return self[code]


def _blank(character: str) -> str:
    """A blank for what parts words, nothing for the rest."""
    return " " if character.isspace() else ""


def _escape(character: str) -> str:
    """The character in JSON's own notation."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


_ONE_LINE, _LINES, _JSON = _Table(_blank), _Table(_blank, "\t\n"), _Table(_escape, "\n")


def one_line(text: object) -> str:
    """The text on one line, without anything that steers a terminal or reorders what it shows."""
    return _SEQUENCE.sub("", str(text)).translate(_ONE_LINE)


def lines(text: str) -> str:
    """A text of several lines, of which each is safe; tabs stay."""
    return _without_unseen(_SEQUENCE.sub("", text))


def log(text: str) -> str:
    """A log with its lines, tabs and colors, and no other escape sequence."""
    kept: list[str] = []
    end, last = 0, RESET
    for found in _SEQUENCE.finditer(text):
        kept.append(_without_unseen(text[end : found.start()]))
        if _COLOR.fullmatch(found.group()):
            kept.append(last := found.group())
        end = found.end()
    kept.append(_without_unseen(text[end:]))
    return "".join(kept) + ("" if last in (RESET, "\x1b[m") else RESET)


def _without_unseen(text: str) -> str:
    return text.replace("\r\n", "\n").translate(_LINES)


def in_json(document: str) -> str:
    """A JSON document with every unseen character within its texts as a `\\u` escape."""
    return document.translate(_JSON)
