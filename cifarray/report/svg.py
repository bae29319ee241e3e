"""Matplotlib figures become inline SVG that takes its colors and fonts from the page around it."""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from cifarray.errors import InputError
from cifarray.report.formats import printable

FILES = (".svg", ".png")
NAMES = (
    *("ink", "muted", "line", "paper", "accent", "quiet", "good", "bad"),
    *(f"seq-{step}" for step in range(7)),
    *(f"cat-{number}" for number in range(8)),
)
"""The page's CSS variables that a figure may draw with."""

COLORS = {name: f"#fe00{number:02x}" for number, name in enumerate(NAMES)}
"""Stand-ins that matplotlib draws with; each becomes var(--name) in the SVG."""

ON_PAPER = {
    **{"ink": "#16181d", "muted": "#5c6470", "line": "#b9c0cb", "paper": "#ffffff"},
    **{"accent": "#2453d6", "quiet": "#9aa3b2", "good": "#14804f", "bad": "#c2371f"},
    **{"cat-0": "#0072b2", "cat-7": "#6b7280"},
}
"""Colors of a figure in a file of its own, which no page gives any."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are anybody's text: a $ in one is a dollar
    "font.family": "sans-serif",
    "font.size": 12.0,
    "axes.titlesize": 13.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.labelsize": 12.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": COLORS["line"],
    "axes.labelcolor": COLORS["muted"],
    "axes.titlecolor": COLORS["ink"],
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": COLORS["line"],
    "grid.linewidth": 1.0,
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "text.color": COLORS["ink"],
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "figure.dpi": 72.0,
}

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


def draw(
    name: str,
    label: str,
    size: tuple[int, int],
    paint: Callable[[Figure], Mapping[str, Sequence[str]]],
) -> str:
    """Return `<svg>` of width x height CSS pixels.

    `name` is unique on its page, `label` says what the figure shows. `paint` fills the figure and
    returns hover texts by gid: one for each marker of the artist, or a single one for all of it.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        tips = paint(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    _strip(root)
    _add_tips(root, tips)
    _make_ids_unique(root, name)
    _follow_the_page(root)
    view = root.attrib["viewBox"]
    root.attrib = {"class": "figure", "viewBox": view, "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def check_file(path: Path) -> None:
    """Raise InputError unless this may become a picture: its ending, and a folder to hold it."""
    if path.suffix.lower() not in FILES:
        raise InputError(f"cannot draw {path}; use a file name that ends in .svg or .png")
    if not path.parent.is_dir():
        raise InputError(
            f"{path} cannot be written: there is no folder {path.parent}; give another path"
        )


def draw_file(path: Path, size: tuple[int, int], paint: Callable[[Figure], object]) -> None:
    """Write a figure as a file of its own, an SVG or a PNG by its name, in dark on white.

    Raises: InputError for another ending, and where the file cannot be written.
    """
    check_file(path)
    style = {**STYLE, "text.color": ON_PAPER["ink"], "svg.hashsalt": path.stem}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(size[0] / 72, size[1] / 72))
        paint(figure)
        try:
            figure.savefig(path, dpi=144, facecolor=ON_PAPER["paper"])
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}; give another path"
            ) from error


def _strip(root: ElementTree.Element) -> None:
    """Drop what a page does not need: namespaces, metadata, a style sheet, what shows nothing."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
            child.tail = None
        parent.text = parent.text if parent.tag == f"{_SVG}text" else None
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        if _LINK in element.attrib:
            element.attrib["href"] = element.attrib.pop(_LINK)


def _add_tips(root: ElementTree.Element, tips: Mapping[str, Sequence[str]]) -> None:
    groups = {element.get("id", ""): element for element in root.iter("g")}
    for gid, texts in tips.items():
        group = groups[gid]
        marks = [group] if len(texts) == 1 else list(group.iter("use"))
        for mark, text in zip(marks, texts, strict=True):
            title = ElementTree.Element("title")
            title.text = "\n".join(printable(line) for line in text.split("\n"))
            mark.insert(0, title)


def _make_ids_unique(root: ElementTree.Element, name: str) -> None:
    """Number the ids that something refers to, under the figure's name; drop the others."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = dict.fromkeys(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    new = {a or b: f"{name}-{number}" for number, (a, b) in enumerate(used)}
    for element in root.iter():
        if (old := element.attrib.pop("id", None)) is None:
            continue
        if old in new:
            element.set("id", new[old])
        elif old.startswith("trial:"):
            element.set("data-trial", old.split(":")[1])
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "href":
                element.set(key, f"#{new[value[1:]]}")
            elif "url(#" in value:
                element.set(key, re.sub(r"#([^)]+)", lambda m: f"#{new[m[1]]}", value))


def _follow_the_page(root: ElementTree.Element) -> None:
    """Put the page's colors and fonts in place of matplotlib's; cut numbers to 0.01 pixel."""
    by_number = {stand_in[1:]: name for name, stand_in in COLORS.items()}
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "style":
                value = re.sub(r"#(fe00\w\w)", lambda m: f"var(--{by_number[m[1]]})", value)
                value = re.sub(r"font-family: [^;]*; ?", "", value)
            elif key not in ("id", "href", "data-trial"):
                value = re.sub(r"(\d+\.\d\d)\d+", r"\1", value)
            element.set(key, value)
