from pathlib import Path

import pytest

from selfdistill.runs.folders import collect_finished
from tests.runs.conftest import Compare


def test_runs_are_collected_once_with_the_baseline_first(compare: Compare, tmp_path: Path) -> None:
    compare()
    folders = [tmp_path / "runs", tmp_path / "runs" / "crossentropy-seed0"]
    assert [record.method for record in collect_finished(folders)] == ["CrossEntropy()", "LabelSmoothing()"]
    smooth = collect_finished(folders, "LabelSmoothing(eps=0.1)")
    assert [record.method for record in smooth] == ["LabelSmoothing()", "CrossEntropy()"]
    with pytest.raises(ValueError, match=r"^`baseline` .*'LabelSmoothing"):
        collect_finished(folders, "LabelSmoothing(eps=0.2)")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no result.json here or below"):
        collect_finished([*folders, tmp_path / "empty"])
