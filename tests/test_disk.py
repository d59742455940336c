"""What is written is whole or not there; a full disk is a test of the run folder, where it hurts."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftwork.disk import atomic_path, atomic_write


def test_other_write_errors_are_left_as_they_are(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "nowhere" / "file", b"x")


def test_a_write_that_breaks_off_leaves_the_old_content(tmp_path: Path):
    atomic_write(tmp_path / "file", b"old")
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "file") as beside:
        _ = beside.write_bytes(b"ne") / 0
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
