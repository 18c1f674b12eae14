"""What the site shows beyond its pages: files outside docs/ that they link to, the changelog, and drawn diagrams.

MkDocs calls the functions `on_...` while it builds the site (`hooks` in mkdocs.yml).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import mermaidx
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.superfences import SuperFencesException

DOCS = Path(__file__).parent
REPOSITORY = DOCS.parent
#: Documents of the repository that are pages here, under another name.
PAGES = {REPOSITORY / "CHANGELOG.md": "changelog.md", REPOSITORY / "README.md": "index.md"}
LANGUAGES = {".py": "python", ".yml": "yaml", ".toml": "toml", ".json": "json", ".jsonl": "json"}

_FENCED = re.compile(r"^(```+).*?^\1$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s#]+)")


def on_config(config: MkDocsConfig) -> None:
    """Have fences of `mermaid` drawn."""
    fence = {"name": "mermaid", "class": "mermaid", "format": draw}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the changelog, and a page for each file outside docs/ that a page links to."""
    files.append(File.generated(config, "changelog.md", abs_src_path=str(REPOSITORY / "CHANGELOG.md")))
    shown = {path for page in files.documentation_pages() for path in _outside(page)}
    for path in sorted(shown):
        files.append(File.generated(config, _page_of(path), content=_as_page(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point links that the forge resolves in the repository to the site's own pages."""
    origin = page.file.abs_src_path
    if origin is None:
        return markdown
    here = posixpath.dirname(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        target = _target(Path(origin), link[2])
        return link[0] if target is None else link[1] + posixpath.relpath(_page_of(target), here)

    # Fenced blocks are code: they stay as they are.
    parts = re.split(r"(^```+.*?^```+$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(moved, part) for part in parts)


def draw(source: str, *_: Any, **__: Any) -> str:
    """Return a Mermaid diagram as SVG, so that readers need neither a script nor a server that has it.

    Raises:
        SuperFencesException: Mermaid cannot read it; with any other, the page would show its source instead.
    """
    try:
        svg = mermaidx.render(source).svg()
    except RuntimeError as error:
        raise SuperFencesException(f"this diagram cannot be drawn ({error}):\n{source}") from None
    # Its styles go by its id, which is the same for every diagram.
    return f'<div class="diagram">{svg.replace("my-svg", f"d{sha256(source.encode()).hexdigest()[:8]}")}</div>'


def _outside(page: File) -> Iterator[Path]:
    if page.abs_src_path is None:
        return
    for link in _LINK.finditer(_FENCED.sub("", page.content_string)):
        target = _target(Path(page.abs_src_path), link[2])
        if target is not None and not target.is_relative_to(DOCS) and target not in PAGES:
            yield target


def _target(origin: Path, link: str) -> Path | None:
    """The file of the repository that a link names, if the site has it elsewhere than where the forge has it."""
    if ":" in link:
        return None
    target = (origin.parent / link).resolve()
    moves = not (target.is_relative_to(DOCS) and origin.is_relative_to(DOCS))
    return target if moves and target.is_relative_to(REPOSITORY) and target.is_file() else None


def _page_of(path: Path) -> str:
    if path in PAGES:
        return PAGES[path]
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return f"source/{path.relative_to(REPOSITORY).as_posix()}.md"


def _as_page(path: Path) -> str:
    language = LANGUAGES.get(path.suffix, "text")
    return f"# {path.relative_to(REPOSITORY).as_posix()}\n\n````{language}\n{path.read_text()}````\n"
