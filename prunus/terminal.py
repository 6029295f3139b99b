"""Text for a terminal: names come from files, and a terminal obeys control characters."""

import os
import unicodedata
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

KEPT = "\n\t"
DIRECTIONS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # change the direction of text
HIDDEN = ("Cc", "Cs", "Zl", "Zp")
NARROWEST, USUAL = 20, 80  # columns; some terminals report none


class Terminal(Console):
    """Print text literally, without rich's [b] markup and :x: emoji, and with control characters escaped."""

    def __init__(self, **settings: Any) -> None:
        columns = os.environ.get("COLUMNS", "")
        if "width" not in settings and columns.isdecimal() and int(columns) < NARROWEST:
            settings["width"] = USUAL
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return `text`, escaped."""
        return super().render_str(visible(text), **settings)

    def print(self, *objects: RenderableType | Any, **settings: Any) -> None:
        """Print; see `rich.console.Console.print`."""
        super().print(*(visible(each) if isinstance(each, str) else each for each in objects), **settings)


def visible(text: str) -> str:
    """Return `text` with control characters, direction changes and invalid Unicode escaped as in Python."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if each in KEPT or not _obeyed(each) else ascii(each)[1:-1] for each in text)


def _obeyed(character: str) -> bool:
    return character in DIRECTIONS or unicodedata.category(character) in HIDDEN
