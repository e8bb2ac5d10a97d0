"""What the generated pages share: where files are, the notice at the top, a cell of a table."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
NOTICE: Final = "<!-- Written by `python -m docs.generate`. Don't change it by hand. -->\n"


class OutOfStep(Exception):
    """The code and the words about it don't fit together; says what to do."""


def cell(text: str) -> str:
    """In a table a bar needs a backslash, which the site shows within code: there it is an entity, which both know."""
    text = re.sub(r"`([^`]*\|[^`]*)`", lambda code: f"<code>{escape(code[1])}</code>".replace("|", "&#124;"), text)
    return text.replace("|", "\\|").replace("\n", " ")
