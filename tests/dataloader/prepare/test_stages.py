"""Stages that continue where a killed run stopped."""

import json
from pathlib import Path

import pytest

from common.errors import UserError
from dataloader.prepare.stages import Stage, run_stages


class Work:
    """Three stages that write a file each, made from the one before, and count their runs."""

    def __init__(self, root: Path) -> None:
        self.root, self.runs, self.fail = root, [], ""

    def stage(self, name: str, before: str, keep_partial: bool = False, **options: int) -> Stage:
        def run(out: Path) -> str:
            self.runs.append(name)
            (out / "half").write_text("")
            if self.fail == name:
                raise RuntimeError("killed")
            text = (self.root / before).read_text() if before else "start"
            (out / name).mkdir()
            (out / name / "result").write_text(f"{text} {name} {options}")
            return f"figure of {name}"

        return Stage(name, options, (name,), run, keep_partial)

    def __call__(self, inputs: str = "photos", b: int = 0, keep: bool = False) -> list[str]:
        self.runs = []
        stages = [
            self.stage("a", ""),
            self.stage("b", "a/result", keep, value=b),
            self.stage("c", "b/result"),
        ]
        self.figures = run_stages(self.root, stages, inputs)
        return self.runs


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def test_stages_run_once_in_order(work: Work) -> None:
    assert work() == ["a", "b", "c"]
    assert work() == []
    assert work.figures == {name: f"figure of {name}" for name in "abc"}
    assert (work.root / "c/result").read_text() == "start a {} b {'value': 0} c {}"
    assert sorted(path.name for path in work.root.iterdir()) == ["a", "b", "c", "work"]
    assert [path.name for path in (work.root / "work").iterdir()] == ["stages.json"]


def test_a_killed_run_continues_with_the_unfinished_stage(work: Work) -> None:
    work.fail = "b"
    with pytest.raises(RuntimeError, match="killed"):
        work()
    assert not (work.root / "b").exists()
    work.fail = ""
    assert work() == ["b", "c"]
    assert not list((work.root / "work").glob("*.partial"))


@pytest.mark.parametrize("keep", [False, True])
def test_only_stages_that_ask_for_it_see_what_was_left(work: Work, keep: bool) -> None:
    work.fail = "b"
    with pytest.raises(RuntimeError, match="killed"):
        work(keep=keep)
    left = next((work.root / "work").glob("b.*.partial"))
    (left / "more").write_text("")
    work.fail = ""
    seen = []
    run = work.stage("b", "a/result", keep, value=0)
    stage = Stage(
        run.name,
        run.options,
        run.outputs,
        lambda out: seen.extend(p.name for p in out.iterdir()) or run.run(out),
        keep,
    )
    run_stages(work.root, [work.stage("a", ""), stage], "photos")
    assert sorted(seen) == (["half", "more"] if keep else [])


def test_changed_options_redo_that_stage_and_the_later_ones(work: Work) -> None:
    work()
    assert work(b=1) == ["b", "c"]
    assert "'value': 1" in (work.root / "c/result").read_text()
    assert work(inputs="other photos", b=1) == ["a", "b", "c"]


def test_a_lost_output_is_made_again(work: Work) -> None:
    work()
    (work.root / "b/result").unlink()
    (work.root / "b").rmdir()
    assert work() == ["b", "c"]


def test_one_log_line_per_stage(work: Work, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    work()
    assert [line.split("(")[0].split() for line in caplog.messages] == [
        [f"[{k}/3]", name, "figure", "of", name] for k, name in enumerate("abc", 1)
    ]
    caplog.clear()
    work()
    assert all(line.endswith("(done before)") for line in caplog.messages)


def test_a_damaged_record_and_an_unwritable_place_are_one_line(work: Work) -> None:
    work()
    record = work.root / "work/stages.json"
    assert set(json.loads(record.read_text())) == {"a", "b", "c"}
    record.write_text("{")
    with pytest.raises(UserError, match=r"stages\.json"):
        work()
    blocked = Work(work.root / "a/result")  # a file where a folder must be
    with pytest.raises(UserError, match="cannot write"):
        blocked()
