"""What is written is whole or not there; a full disk is a test of the run folder, where it hurts."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from graftwork.disk import DiskFullError, atomic_path, atomic_write, plain_disk_errors


def test_other_write_errors_are_left_as_they_are(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "nowhere" / "file", b"x")


def test_a_write_that_breaks_off_leaves_the_old_content(tmp_path: Path):
    atomic_write(tmp_path / "file", b"old")
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "file") as beside:
        _ = beside.write_bytes(b"ne") / 0
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_is_full_for_weights_is_told_in_the_same_words(tmp_path: Path):
    with pytest.raises(DiskFullError, match=r"The disk is full: .* Make room") as caught, plain_disk_errors(tmp_path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert caught.value.errno == errno.ENOSPC


def test_other_errors_of_weights_are_left_as_they_are(tmp_path: Path):
    with pytest.raises(SafetensorError), plain_disk_errors(tmp_path):
        save_file({"weight": torch.zeros(4)}, tmp_path / "nowhere" / "head.safetensors")
