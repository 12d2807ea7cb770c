"""What makes a site of these pages, which are written to be read in the repository too.

Links to files outside ``docs/`` lead to pages made of those files, formulas become MathML, which browsers draw by
themselves in a font that is shipped along, and docstrings Markdown.
"""

import html
import posixpath
import re
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import notebooks  # noqa: E402  (beside this file)
from docstrings import to_markdown  # noqa: E402

PAGE_OF = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
}
"""Pages that lie outside ``docs/``, by their path in the repository."""

_FONT = "STIXTwoMath-Regular.ttf"
_LINK = re.compile(r"(?<=\]\()(?!https?:)([^)#\s]+)(?=[)#])")
_LOADED = re.compile(r"""<(?:script|img|iframe|link(?=[^>]*stylesheet))[^>]*?(?:src|href)=["']?(?:https?:)?//[^>]*>""")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside ``docs/`` and a page for each file that a page links to."""
    wanted = {f"docs/{file.src_uri}" for file in files if file.src_uri.endswith(".md")} | set(PAGE_OF)
    linked: set[str] = set()
    for page in wanted:
        linked |= set(_targets((ROOT / page).read_text(encoding="utf-8"), page))
    for source in sorted(notebooks.SOURCES.glob("*.py")):
        text = source.read_text(encoding="utf-8")
        name = f"notebooks/{source.stem}"
        files.append(File.generated(config, f"{name}.md", content=notebooks.to_page(source.stem, text)))
        files.append(File.generated(config, f"{name}.ipynb", content=notebooks.to_ipynb(text)))
    font = distribution("ziamath").locate_file(f"ziamath/fonts/{_FONT}")
    files.append(File.generated(config, f"assets/{_FONT}", abs_src_path=str(font)))
    for path in sorted(set(PAGE_OF) | {one for one in linked if not one.startswith(("docs/", "notebooks/"))}):
        text = (ROOT / path).read_text(encoding="utf-8")
        content = text if path in PAGE_OF else _listing(path, text)
        files.append(File.generated(config, _uri(path), content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to where their files are on the site, and take out the marks around what docs/make.py writes."""
    uri = page.file.src_uri
    path = next((path for path, own in PAGE_OF.items() if own == uri), f"docs/{uri}")
    if uri.startswith(("notebooks/", "source/")):
        return markdown
    folder = posixpath.dirname(uri) or "."
    markdown = _LINK.sub(lambda link: posixpath.relpath(_uri(_resolved(link[1], path)), folder), markdown)
    return re.sub(r"^<!-- .* -->$", "", markdown, flags=re.MULTILINE)


def on_page_content(content: str, **_: Any) -> str:
    """Write formulas as MathML."""
    content = re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', _inline, content, flags=re.DOTALL)
    return re.sub(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', _display, content, flags=re.DOTALL)


def on_post_build(config: Any, **_: Any) -> None:
    """Refuse a site that loads anything from elsewhere."""
    for page in sorted(Path(config.site_dir).rglob("*.html")):
        text = re.sub(r"<pre>.*?</pre>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        if (found := _LOADED.search(text)) is not None:
            raise PluginError(f"{page} loads from elsewhere: {found[0]}")
        if (left := re.search(r"(?:arithmatex|:math:|\.\. math::).{,80}", text, re.DOTALL)) is not None:
            raise PluginError(f"{page} has a formula that is not MathML: {left[0]}")


class Markdown(griffe.Extension):
    """Docstrings are written as for Sphinx; here their roles become Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite a docstring's formulas and references."""
        if obj.docstring is not None:
            value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = to_markdown(value)


def _targets(markdown: str, path: str) -> list[str]:
    return [_resolved(link[1], path) for link in _LINK.finditer(markdown)]


def _resolved(target: str, path: str) -> str:
    """Return a link's target as a path in the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def _uri(path: str) -> str:
    """Return where a file of the repository is on the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("notebooks/"):
        return path.replace(".ipynb", ".md")
    return PAGE_OF.get(path, f"source/{path}.md")


def _listing(path: str, text: str) -> str:
    language = {".py": "python", ".yaml": "yaml"}.get(Path(path).suffix, "text")
    return f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n~~~~~~{language}\n{text}~~~~~~\n"


def _inline(found: re.Match[str]) -> str:
    return _mathml(found[1], "inline")


def _display(found: re.Match[str]) -> str:
    return f'<div class="formula">{_mathml(found[1], "block")}</div>'


def _mathml(latex: str, display: str) -> str:
    mathml = convert(html.unescape(latex).strip(), display=display)
    if "\\" in mathml:
        raise PluginError(f"a command of this formula is not known to latex2mathml: {latex.strip()}")
    return mathml
