"""docs/benchmarks.md: the words for frames of the profile."""

from __future__ import annotations

import re

import pytest

from bench.figures import ROOT
from bench.write import FRAMES

OURS = re.compile(r"(?:(?P<owner>\w+)\.)?(?P<function>\w+)(?:\.<locals>\..*)? \((?P<file>apiflux_grpc/.+\.py)\)")


@pytest.mark.parametrize("found", [*filter(None, map(OURS.fullmatch, FRAMES))], ids=lambda found: found["function"])
def test_a_frame_that_has_words_is_there(found: re.Match[str]) -> None:
    """A function of ours that the page has words for is in the file that py-spy would name."""
    text = (ROOT / found["file"]).read_text(encoding="utf-8")
    assert re.search(rf"def {found['function']}\(", text)
    assert found["owner"] is None or re.search(rf"^class {found['owner']}\b", text, re.MULTILINE)
