"""Reading report pages in tests: tags, tables, and the entries that commands give again."""

from __future__ import annotations

import json
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Entry:
    """A value of a table, and where the command of the table has it."""

    def __init__(self, command, attributes):
        self.command, self.column = command, attributes["data-column"]
        self.value = float(attributes["data-value"])
        self.row = json.loads(attributes["data-row"])


class Reader(HTMLParser):
    """Collects tags and text, and checks that elements are nested and closed."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.rows, self.problems, self.ids = [], [], [], [], []
        self.table, self.command, self.entries = None, "", []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if len(attributes) != len(attrs):
            self.problems.append(f"attribute twice in {tag}")
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "table":
            self.table = attributes.get("id", "")
            self.command = attributes.get("data-command", "")
        if "data-value" in attributes:
            self.entries.append(Entry(self.command, attributes))
        if tag == "tr":
            self.rows.append((self.table, [], []))
        if tag in ("td", "th"):
            self.rows[-1][1].append("")
            self.rows[-1][2].append(int(attributes.get("colspan", 1)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        if self.open and self.rows and {"td", "th"} & set(self.open):
            self.rows[-1][1][-1] += data


def read_page(text):
    """A reader that has seen a whole page."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader
