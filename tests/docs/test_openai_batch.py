"""The page about OpenAI's batch files says where a call goes, and it goes there."""

from __future__ import annotations

import re

import pytest

from apiflux_grpc.jobs.urls import BaseUrl
from docs.common import ROOT

PAGE = (ROOT / "docs" / "howto" / "openai-batch.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(https[^`]*)` \| `([^`]*)` \| (.*) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("base", "url", "goes"), ROWS)
def test_a_url_leads_where_the_page_says(base: str, url: str, goes: str) -> None:
    """Or nowhere; then what the page says to write leads somewhere."""
    if goes.startswith("nowhere"):
        with pytest.raises(ValueError, match=r"leaves the pool's base URL|not the version"):
            BaseUrl(base).path_of(url)
        for better in re.findall("write `(.*)`", goes):
            assert BaseUrl(base).path_of(better) == (better, ())
    else:
        path, _ = BaseUrl(base).path_of(url)
        assert f"{base}{path}" == (url if goes == "the same" else goes.strip("`"))


def test_the_page_has_such_a_table() -> None:
    """The test above has something to do."""
    assert len(ROWS) > 5
