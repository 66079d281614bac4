"""A report as data: sections of text, tables, pictures and films, and the HTML page of them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from aqnet.errors import explain
from aqnet.io import atomic_write_text
from aqnet.metrics import VerificationError

__all__ = [
    "LARGEST_PAGE_MB",
    "Cell",
    "Command",
    "Film",
    "Listing",
    "Page",
    "Picture",
    "Section",
    "Table",
    "Text",
    "picture",
    "png",
    "render_page",
    "write_page",
]

LARGEST_PAGE_MB = 25  # what mail servers and browsers on old laptops still take
_DPI = 130


@dataclass(frozen=True)
class Text:
    """Paragraphs, or a list of sentences; escaped when the page is written."""

    sentences: Sequence[str]
    bullets: bool = False
    style: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Command:
    """A command line that repeats what stands beside it."""

    line: str
    before: str = "Again:"
    kind: ClassVar[str] = "command"


@dataclass(frozen=True)
class Picture:
    """A PNG image in the page; `alt` says what it shows to who cannot see it."""

    src: str
    alt: str
    caption: str
    title: str = ""
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Film:
    """Pictures in a row, with a slider and a button; paper and browsers without script show one.

    Attributes
    ----------
    frames : sequence of (label, data URI)
    alt, caption, title : str
    shown : int
        The frame on paper.
    """

    frames: Sequence[tuple[str, str]]
    alt: str
    caption: str
    title: str = ""
    shown: int = 0
    kind: ClassVar[str] = "film"


@dataclass(frozen=True)
class Listing:
    """Names and what there is to say about them."""

    items: Sequence[tuple[str, str]]
    code: bool = False
    kind: ClassVar[str] = "listing"


@dataclass(frozen=True)
class Cell:
    """One entry of a table.

    Attributes
    ----------
    text : str
    value : float or None
        In full precision, kept in the page beside the rounded text.
    column, row : str, mapping
        Where the value stands in the table that the command of this table writes: the name of
        its column, and what the row has in other columns.
    style : str
        Classes of the style sheet.
    colour, ink : str
        Background and text, #rrggbb; empty for those of the page.
    mark : str
        Sign before the text: of a verdict, or of the best of a row.
    """

    text: str
    value: float | None = None
    column: str = ""
    row: Mapping[str, object] = field(default_factory=dict)
    style: str = ""
    colour: str = ""
    ink: str = ""
    mark: str = ""
    span: int = 1
    head: bool = False

    @property
    def row_json(self) -> str:
        """`row` for an attribute."""
        return json.dumps(self.row, sort_keys=True, default=lambda value: value.item())


@dataclass(frozen=True)
class Table:
    """Rows of cells below rows of heads, and the command that gives its values again.

    Attributes
    ----------
    title, unit, note : str
    heads, rows : sequence of sequence of Cell
    command : str
        Writes the values to a CSV file; empty for tables that only describe.
    source : str
        Anchor of the scoreboard that the values are from.
    key : str
        Anchor of the table.
    style : str
    folded : bool
        Shown when it is asked for.
    """

    heads: Sequence[Sequence[Cell]]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    unit: str = ""
    note: str = ""
    command: str = ""
    source: str = ""
    key: str = ""
    style: str = ""
    folded: bool = False
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Section:
    """A chapter or, inside one, a part of it; `side` sets its tables in two columns."""

    key: str
    title: str
    blocks: Sequence[object]
    parts: Sequence[Section] = ()
    side: bool = False


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes
    ----------
    title, subtitle : str
    sections : sequence of Section
    synthetic : bool
        Data are simulated; the page then says so above everything else.
    counts : sequence of (number, text)
        Large numbers at the head.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
    synthetic: bool
    counts: Sequence[tuple[str, str]] = ()


def png(figure: Figure, dpi: float = _DPI) -> str:
    """Data URI of a figure; without the software tag its bytes depend on the data alone."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def picture(figure: Figure, alt: str, caption: str, title: str = "") -> Picture:
    """Picture of a figure."""
    return Picture(png(figure), alt, caption, title)


def render_page(page: Page) -> str:
    """One HTML 5 page, UTF-8: no file and no network is needed to show it. Text is escaped.

    Raises
    ------
    VerificationError
        An anchor is there twice.
    """
    keys = [s.key for chapter in page.sections for s in (chapter, *chapter.parts)]
    if repeated := sorted({key for key in keys if keys.count(key) > 1}):
        raise VerificationError(
            explain("sections of one name", expected="a key of its own for each",
                    found=repeated, remedy="rename them")
        )  # fmt: skip
    environment = Environment(
        loader=PackageLoader("aqnet.verification", "templates"), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    films = any(
        block.kind == "film"
        for chapter in page.sections
        for part in (chapter, *chapter.parts)
        for block in part.blocks
    )
    return environment.get_template("page.html.j2").render(page=page, films=films)


def write_page(path: str | Path, page: Page) -> Path:
    """Render a page and write it in one piece; an old file is replaced.

    Raises
    ------
    VerificationError
        It would be larger than `LARGEST_PAGE_MB`.
    StorageFullError
        No room on the disk; nothing is left behind.
    """
    text = render_page(page)
    if len(text.encode()) > LARGEST_PAGE_MB * 1e6:
        raise VerificationError(
            explain(f"{path} would be too large", expected=f"at most {LARGEST_PAGE_MB} MB",
                    found=f"{len(text.encode()) / 1e6:.0f} MB", remedy="ask for fewer frames, "
                    "forecasts or boards")
        )  # fmt: skip
    atomic_write_text(path, text)
    return Path(path)
