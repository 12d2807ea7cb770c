import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "proofs.md").read_text())
    assert len(set(named)) > 15
    written = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in named if f"def {name}(" not in written] == []
