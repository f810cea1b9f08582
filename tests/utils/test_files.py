from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tombola.utils.errors import DamagedFile
from tombola.utils.files import atomic_write, read_tensors, write_tensors

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([True, False]), "none": torch.zeros(0, 4)}
ABOUT = {"name": "θ0", "count": 3, "none": None}


def test_tensors_and_what_they_are_about_come_back(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.safetensors"
    write_tensors(path, TENSORS, ABOUT)
    tensors, about = read_tensors(path)
    assert about == ABOUT
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert [file.name for file in path.parent.iterdir()] == ["file.safetensors"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damaged_byte_goes_unnoticed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, ABOUT)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        tensors, about = read_tensors(path)
    except DamagedFile:
        return
    # Only what says nothing may differ: padding in the header.
    assert about == ABOUT
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_file_is_damaged(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, ABOUT)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedFile, match=r"file\.safetensors"):
        read_tensors(path)


def test_a_file_that_is_not_there_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none.safetensors")


def test_somebody_elses_safetensors_file_is_refused(tmp_path: Path) -> None:
    import safetensors.torch

    safetensors.torch.save_file(TENSORS, tmp_path / "other.safetensors")
    with pytest.raises(DamagedFile, match="no digest"):
        read_tensors(tmp_path / "other.safetensors")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def write_half() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half of ")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.bool, torch.int64])
def test_numbers_of_every_kind_come_back(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"x": torch.tensor([[0.0, 1.0], [2.0, 4.0]]).to(dtype).t(), "scalar": torch.ones(()).to(dtype)}
    write_tensors(tmp_path / "numbers.safetensors", tensors, {})
    read, _ = read_tensors(tmp_path / "numbers.safetensors")
    for name, tensor in tensors.items():
        assert read[name].dtype == dtype
        assert torch.equal(read[name].float(), tensor.float())


@pytest.mark.parametrize("about", ["[]", "3", "null", "{", "", "[" * 10**5, '{"a": "\\ud800"', 3, None, ["{}"]])
def test_what_is_not_about_anything_is_damaged(tmp_path: Path, about: object) -> None:
    import json

    import safetensors.torch

    from tombola.utils.files import digest

    path = tmp_path / "file.safetensors"
    signed = {"digest": digest(TENSORS, about if isinstance(about, str) else ""), "about": about}
    safetensors.torch.save_file(TENSORS, path, {"tombola": json.dumps(signed)})
    with pytest.raises(DamagedFile, match=r"file\.safetensors"):
        read_tensors(path)
