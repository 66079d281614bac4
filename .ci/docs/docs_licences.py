"""The page of licences and credits, from the manifests and files that ship with the data."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml
from docs_text import ROOT, cell, table

from aqnet.data.manifest import load_manifest

MANIFESTS = ROOT / "data_manifests"


def manifests() -> list[Path]:
    """Manifests that ship; what was measured of stores is not one."""
    return [f for f in sorted(MANIFESTS.glob("*.yaml")) if not f.name.endswith(".record.yaml")]


def _rows() -> list[tuple[str, ...]]:
    rows = []
    for path in manifests():
        manifest = load_manifest(path)
        kind = "simulated" if manifest.synthetic else "real"
        row = (f"`{path.name}`", kind, manifest.title, manifest.licence, manifest.attribution)
        rows.append((row[0], *map(cell, row[1:])))
    return rows


def _lowered(text: str) -> str:
    """The text with its headings two levels down."""
    return re.sub(r"^#", "###", text, flags=re.MULTILINE)


def _cited() -> list[tuple[str, ...]]:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    rows = []
    for entry in citation["references"]:
        names = [a.get("family-names") or a.get("name") for a in entry["authors"]]
        who = names[0] + (" et al." if len(names) > 1 else "")
        rows.append(tuple(cell(t) for t in (entry["title"], who, entry.get("year", ""),
                                            entry.get("doi", entry.get("url", "")))))  # fmt: skip
    return rows


def page() -> str:
    """Markdown of the page."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    said = [
        "# Licences and credits\n",
        f"The code is under {project['license']} (`LICENSE`). Data have licences of their own. To "
        "cite the software and the data, use `CITATION.cff`.\n",
        "## Data sets\n",
        table(("Manifest", "Data", "What", "Licence", "Credit"), _rows()),
        "## References of CITATION.cff\n",
        table(("Title", "Authors", "Year", "DOI"), _cited()),
        "## Files that ship with the code\n",
    ]
    files = sorted(MANIFESTS.rglob("LICENCE-*.md"))
    said += [_lowered(file.read_text(encoding="utf-8")) for file in files]
    return "\n".join(said)


def remarks() -> str:
    """What each manifest says of its own undocumented settings and quirks."""
    said = []
    for path in manifests():
        manifest = load_manifest(path)
        said.append(f"### {manifest.title}\n\n`data_manifests/{path.name}`\n")
        for name in type(manifest).model_fields:
            if name.endswith("_note"):
                noted = name.removesuffix("_note")
                setting = next(n for n in (noted, f"{noted}_h") if hasattr(manifest, n))
                value = cell(getattr(manifest, setting))
                said.append(f"- `{setting}: {value}`. {cell(getattr(manifest, name))}")
        said += [f"- {cell(quirk)}" for quirk in manifest.quirks]
        said.append("")
    return "\n".join(said)
