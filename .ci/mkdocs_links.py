"""mkdocs hook: links between notebooks lead to notebooks in JupyterLab, to pages on the site."""

import re


def on_page_content(html: str, **_: object) -> str:
    """Relative links to a .ipynb become links to its page."""
    return re.sub(r'href="([^":]+)\.ipynb(#[^"]*)?"', r'href="\1.html\2"', html)
