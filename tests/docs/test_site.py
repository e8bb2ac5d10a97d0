"""The pages as a site: it builds without a warning, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest

from docs.common import ROOT

LOADS = {
    "link": "href",
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "object": "data",
    "use": "href",
}


class Loads(HTMLParser):
    """What a browser fetches by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in ("stylesheet", "icon", "preload", "preconnect", "modulepreload"):
            return
        self.found += [value for name, value in attrs if name == LOADS.get(tag) and value]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="make docs installs mkdocs")
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """Every link within it leads somewhere; pages and styles name no other host to fetch from."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    elsewhere = set()
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert loads.found
        elsewhere |= {url for url in loads.found if re.match(r"(?:https?:)?//", url)}
    for style in (tmp_path / "site").rglob("*.css"):
        elsewhere |= set(re.findall(r"url\([\"']?((?:https?:)?//[^)]+)\)", style.read_text(encoding="utf-8")))
    assert elsewhere == set()
    assert not (tmp_path / "site" / "_settings.toml").exists()


def test_pictures_stand_for_themselves() -> None:
    """Each has a title and a description for those who can't see it, and loads nothing; no id is there twice."""
    pictures = list((ROOT / "docs" / "assets").glob("*.svg"))
    assert len(pictures) >= 4
    ids: list[str] = []
    for picture in pictures:
        text = picture.read_text(encoding="utf-8")
        ids += re.findall(r' id="([^"]+)"', text)
        assert "<title id=" in text
        assert "<desc id=" in text
        assert not re.search(r"href|@import|url\((?!#)", text)
    assert len(ids) == len(set(ids))
