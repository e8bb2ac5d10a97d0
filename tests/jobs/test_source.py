"""The input of a job: which files are taken, and how they are opened."""

from __future__ import annotations

from pathlib import Path

from apiflux_grpc.jobs.job import Job
from apiflux_grpc.jobs.source import Source


def test_a_template_s_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """As Notepad saves it."""
    rows, template = tmp_path / "rows.csv", tmp_path / "template.json"
    rows.write_text("a\n1\n")
    template.write_text('{"path": "/{a}"}', encoding="utf-8-sig")
    source = Source(Job(rows, target="", template=f"@{template}"))
    assert [entry.call.path for entry in source.read() if entry.call] == ["/1"]
