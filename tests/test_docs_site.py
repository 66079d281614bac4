"""The documentation as a site: it builds without the network, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from test_structure import ROOT

sys.path.insert(0, str(ROOT / ".ci" / "docs"))
import docs_hook
from docs_links import wrong_links


def test_links_that_lead_nowhere_are_found(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.html").write_text('<h2 id="there">x</h2><a href="../one.html#a">1</a>')
    page = '<a id="a" href="b/two.html#there">2</a>'
    (tmp_path / "one.html").write_text(page + '<a href="https://example.invalid/x">out</a>')
    assert wrong_links(tmp_path) == []
    bad = '<a href="b/three.html">3</a><a href="b/two.html#gone">2</a><a href="#none">0</a>'
    (tmp_path / "one.html").write_text(
        f'{page}{bad}<script src="https://cdn.invalid/x.js"></script><img src="lost.png">'
    )
    assert wrong_links(tmp_path) == [
        "one.html: #none leads to no heading",
        "one.html: b/three.html leads to no file",
        "one.html: b/two.html#gone leads to no heading",
        "one.html: lost.png leads to no file",
        "one.html: needs https://cdn.invalid/x.js from the network",
    ]


def test_cells_show_formulas_and_lead_to_pages():
    cell = '<div class="jp-RenderedHTMLCommon jp-RenderedMarkdown">{}</div>'
    text = docs_hook.on_page_content(cell.format("<p>$a &lt; b$ and $$\\frac{1}{2}$$</p>"))
    assert text.count("<math") == 2 and 'display="block"' in text and "$" not in text
    assert docs_hook.on_page_content('<code>"$B" "$C"</code>') == '<code>"$B" "$C"</code>'
    link = docs_hook.on_page_content('<a href="a/b.ipynb#c">x</a>')
    assert link == '<a href="a/b.html#c">x</a>'
    twice = docs_hook.on_page_content('<h2 id="x">a</h2><h2 id="x">b</h2>')
    assert twice == '<h2 id="x">a</h2><h2 id="x_1">b</h2>'


def test_the_navigation_has_every_notebook_of_the_index_and_every_written_page():
    listed = [name for names in docs_hook.notebook_groups().values() for name in names]
    assert len(set(listed)) == len(listed) > 40
    written = {f"docs/{p.name}" for p in (ROOT / "nbs" / "docs").glob("*.md")}
    pages = {name for name in docs_hook.GENERATED if not name.startswith("docs/reference/")}
    assert written | pages == set(docs_hook.GUIDES)


@pytest.mark.slow
def test_the_site_builds_without_the_network(tmp_path):
    # A proxy that refuses everything stands in for the missing network.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path / "s")],
        cwd=ROOT, capture_output=True, text=True,
        env=os.environ | nowhere | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("start", "sharp_edges", "architecture", "reference/commands", "licences"):
        text = (tmp_path / "s" / "docs" / f"{name}.html").read_text(encoding="utf-8")
        assert "from code:" not in text
        assert re.search(r"<h1", text)
    assert "<math" in (tmp_path / "s" / "24_biases.html").read_text(encoding="utf-8")
