"""What lies in folders and archives though nobody put it there to be a sample.

The files of operating systems, network drives, version control and editors, and the notes that
come with a dataset.
"""

from pathlib import PurePosixPath

FOLDERS = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "#snapshot",
        "@recently-snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
    }
)
FILES = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "icon\uf00d",  # the same over SMB
        "dataset_info.json",
        "dataset_infos.json",
        "dataset_dict.json",
        "state.json",
    }
)
NOTES = ("readme", "license", "licence", "copying", "citation", "changelog")
NOTE_SUFFIXES = ("", ".md", ".txt", ".rst", ".html", ".htm", ".pdf", ".cff", ".bib")
STREAMS = (":zone.identifier", "@synoeastream", "@synoresource", "~")
"""Ends of the names of what Windows, Synology's drives and editors put beside a file."""
SYSTEM = "hidden or system file"
NOTE = "readme, licence or the like"


def litter(name: str) -> str | None:
    """Why the file at this path is no sample; None where it may be one."""
    path = PurePosixPath(name.lower())
    if any(is_litter_folder(part) for part in path.parts[:-1]) or path.name.startswith("."):
        return SYSTEM
    if path.name in FILES or path.name.endswith(STREAMS):
        return SYSTEM
    return NOTE if path.name.startswith(NOTES) and path.suffix in NOTE_SUFFIXES else None


def is_litter_folder(name: str) -> bool:
    """Whether a folder of this name holds no samples: it is hidden, or a system's own."""
    return name.startswith(".") or name.lower() in FOLDERS
