"""What docs/hooks.py makes of pages and docstrings; `mkdocs build --strict` does so with all of them."""

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.scripts import load_script

exceptions = pytest.importorskip("mkdocs.exceptions", reason="the dependency group docs is not installed")


@pytest.fixture(name="hooks", scope="module")
def _hooks() -> ModuleType:
    return load_script("docs/hooks.py")


def page(uri: str) -> SimpleNamespace:
    return SimpleNamespace(file=SimpleNamespace(src_uri=uri))


@pytest.mark.parametrize(
    ("uri", "link", "led"),
    [
        ("guide/quickstart.md", "../models.md", "../models.md"),
        ("guide/quickstart.md", "../../examples/README.md#runs", "../examples.md#runs"),
        ("index.md", "docs/trust.md", "trust.md"),
        ("examples.md", "plain_loop.py", "source/examples/plain_loop.py.md"),
        ("gpu.md", "../studies/gpu.py", "source/studies/gpu.py.md"),
        ("gpu.md", "https://docs.ray.io", "https://docs.ray.io"),
        ("gpu.md", "#a", "#a"),
        ("index.md", "notebooks/compare.ipynb", "notebooks/compare.md"),
    ],
)
def test_links_lead_to_pages_of_the_site(hooks: ModuleType, uri: str, link: str, led: str) -> None:
    assert hooks.on_page_markdown(f"<!-- table -->\nsee [it]({link}).", page(uri)) == f"\nsee [it]({led})."


@pytest.mark.parametrize(
    ("docstring", "markdown"),
    [
        ("The factor :math:`T^2` of :func:`~selfdistill.losses.kl`.", "The factor $T^2$ of `kl`."),
        (".. math:: a = b\n\nNext.", "$$\na = b\n$$\n\nNext."),
        ("First.\n\n.. math::\n    a =\n        b\n\nwhere ``b``", "First.\n\n$$\na = b\n$$\n\nwhere `b`"),
    ],
)
def test_docstrings_become_markdown(hooks: ModuleType, docstring: str, markdown: str) -> None:
    assert hooks.to_markdown(docstring) == markdown


def test_formulas_become_mathml(hooks: ModuleType) -> None:
    content = hooks.on_page_content(r'<p><span class="arithmatex">\(a &lt; b\)</span></p>')
    assert "<mi>a</mi><mo>&#x0003C;</mo><mi>b</mi>" in content
    assert "arithmatex" not in content
    with pytest.raises(exceptions.PluginError):
        hooks.on_page_content(r'<span class="arithmatex">\(\nonsense a\)</span>')


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link href="//fonts.example/a.css" rel="stylesheet">',
        '<link rel="stylesheet" href="https://fonts.example/a.css">',
        '<img alt="a" src="https://example.org/a.png">',
        '<span class="arithmatex">x</span>',
        "<p>:math:<code>x</code></p>",
    ],
)
def test_a_site_that_loads_from_elsewhere_is_refused(hooks: ModuleType, tmp_path: Path, text: str) -> None:
    (tmp_path / "index.html").write_text('<a href="https://docs.ray.io">a link</a><img src="a.svg">')
    hooks.on_post_build(SimpleNamespace(site_dir=tmp_path))
    (tmp_path / "index.html").write_text(text)
    with pytest.raises(exceptions.PluginError):
        hooks.on_post_build(SimpleNamespace(site_dir=tmp_path))
