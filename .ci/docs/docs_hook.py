"""mkdocs hook: generated pages, navigation, formulas and links of the documentation."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import docs_commands
import docs_formats
import docs_licences
import docs_links
import docs_reference
import docs_rooms
from docs_text import ROOT, UndocumentedError
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files


def _moved(name: str) -> str:
    """A file from beside the pages, with its links as they are among the pages."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return text.replace("](nbs/docs/", "](").replace("](slurm/README.md)", "](slurm.md)")


# Pages that exist nowhere as a file; `CONTRIBUTING.md` and `slurm/README.md` stay where tools and
# people look for them.
GENERATED: dict[str, Callable[[], str]] = {
    "docs/reference/commands.md": docs_commands.page,
    "docs/reference/parameters.md": docs_reference.parameters_page,
    "docs/reference/configuration.md": docs_reference.configuration_page,
    "docs/reference/files.md": docs_formats.page,
    "docs/reference/variables.md": docs_reference.variables_page,
    "docs/licences.md": docs_licences.page,
    "docs/contributing.md": lambda: _moved("CONTRIBUTING.md"),
    "docs/slurm.md": lambda: _moved("slurm/README.md").replace("# slurm", "# Clusters", 1),
}  # fmt: skip
# Places in written pages that are filled from the code.
FILLED: dict[str, Callable[[], str]] = {
    "rooms": docs_rooms.rooms_table,
    "remarks of manifests": docs_licences.remarks,
}
GUIDES = (
    "docs/start.md", "docs/caqra_to_gpus.md", "docs/scorecard.md", "docs/sharp_edges.md",
    "docs/slurm.md", "docs/architecture.md", "docs/contributing.md", "docs/licences.md",
)  # fmt: skip
_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$([^$\n]+?)\$(?!\w)", re.DOTALL)
_CELL = re.compile(r'(<div class="jp-RenderedHTMLCommon jp-RenderedMarkdown.*?</div>)', re.DOTALL)
_SCRIPTS = re.compile(
    r"<!-- MathJax configuration -->.*?<!-- End of mathjax configuration -->|"
    r'<script src=""> </script>|<script type="module">\s*document\.addEventListener'
    r'\("DOMContentLoaded", async.*?</script>', re.DOTALL,
)  # fmt: skip


def notebook_groups() -> dict[str, list[str]]:
    """Notebooks by the group in which nbs/index.ipynb lists them."""
    cells = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    groups: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if heading := re.match(r"\*\*(.+?)\*\*", line):
            name = heading[1]
        if link := re.match(r"- \[.+?\]\(([^)]*\.ipynb)\)", line):
            groups.setdefault(name, []).append(link[1])
    return groups


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Navigation: guides, reference, and the notebooks in the groups of the index."""
    reference = [name for name in GENERATED if name.startswith("docs/reference/")]
    notebooks = [{group: names} for group, names in notebook_groups().items()]
    config.nav = ["index.ipynb", {"Guides": list(GUIDES)}, {"Reference": reference},
                  {"Notebooks": notebooks}]  # fmt: skip
    return config


def _from_code(page: Callable[[], str]) -> str:
    """Text of a page; what is not documented ends the build in one line."""
    try:
        return page()
    except UndocumentedError as problem:
        raise PluginError(str(problem)) from problem


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for name, page in GENERATED.items():
        files.append(File.generated(config, name, content=_from_code(page)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill `<!-- from code: NAME -->`."""
    return re.sub(r"<!-- from code: (.+?) -->", lambda m: _from_code(FILLED[m[1]]), markdown)


def _formula(match: re.Match[str]) -> str:
    block = match[1] is not None
    text = html.unescape(match[1] if block else match[2]).strip()
    return convert(text, display="block" if block else "inline")


def _numbered_headings(content: str) -> str:
    """A heading that a notebook repeats gets the anchor that the table of contents gives it."""
    seen: Counter[str] = Counter()

    def numbered(match: re.Match[str]) -> str:
        name = match[2]
        seen[name] += 1
        return match[0] if seen[name] == 1 else f'{match[1]}{name}_{seen[name] - 1}"'

    return re.sub(r'(<h[1-6] id=")([^"]+)"', numbered, content)


def on_page_content(content: str, **_: object) -> str:
    """Notebooks: formulas as MathML, links to pages, no scripts from other hosts."""
    content = _numbered_headings(_SCRIPTS.sub("", content))
    content = _CELL.sub(lambda cell: _FORMULA.sub(_formula, cell[1]), content)
    return re.sub(r'href="([^":]+)\.(?:ipynb|md)(#[^"]*)?"', r'href="\1.html\2"', content)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site with a link that leads nowhere, or that needs the network."""
    if wrong := docs_links.wrong_links(Path(config.site_dir)):
        raise PluginError("\n".join(("links of the site:", *wrong)))
