"""Folders that know how they were made, and work on several threads."""

import threading
from pathlib import Path

import pytest

from common.errors import UserError
from dataloader.rig.prepare.folders import RECORD, claim, completing, digest, in_order


def test_a_folder_belongs_to_one_set_of_options(tmp_path: Path) -> None:
    out = tmp_path / "out"
    claim(out, {"size": (2, 3), "step": 1})
    (out / "cam00").mkdir()
    claim(out, {"size": (2, 3), "step": 1})
    with pytest.raises(UserError, match=r"out was made with other options \(step\): delete it"):
        claim(out, {"size": (2, 3), "step": 2})
    assert (out / "cam00").is_dir()


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_text("")
    with pytest.raises(UserError, match="was not made by this command"):
        claim(tmp_path, {"step": 1})
    with pytest.raises(UserError, match="was not made by this command"):
        claim(tmp_path / "mine.png", {"step": 1})
    assert not (tmp_path / RECORD).exists()


def test_unfinished_work_gives_way_to_other_options(tmp_path: Path) -> None:
    claim(tmp_path, {"step": 1})
    with pytest.raises(UserError, match="stop"), completing(tmp_path / "cam00") as partial:
        (partial / "0.png").write_text("")
        raise UserError("stop")
    with completing(tmp_path / "cam00") as partial:
        assert (partial / "0.png").exists()  # what a killed run left
        claim(tmp_path, {"step": 2})
        assert not partial.exists()
        partial.mkdir()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["cam00"]


def test_calls_are_few_at_a_time_in_order_and_raise() -> None:
    taken = []

    def items():
        for i in range(50):
            taken.append(i)
            yield i

    results = in_order(lambda i: (i, threading.get_ident()), items(), workers=2)
    first = next(results)
    assert len(taken) <= 4
    assert [number for number, _ in [first, *results]] == list(range(50))

    def fail(i: int) -> None:
        if i == 3:
            raise UserError("three")

    with pytest.raises(UserError, match="three"):
        list(in_order(fail, range(10)))


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    assert digest(tmp_path / "a") != digest(tmp_path / "b")
    with pytest.raises(UserError, match="c cannot be read"):
        digest(tmp_path / "c")
