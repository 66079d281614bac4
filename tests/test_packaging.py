"""Files for tools: settings, pins, ignore rules, citation, index, and what lies at the top."""

from __future__ import annotations

import configparser
import hashlib
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_structure import PACKAGE, ROOT, repository_files, text_of

import aqnet

# Folders of the project, then what tools look for at the top.
TOP = {"nbs", "aqnet", "slurm", "data_manifests", "tests", "settings.ini", "README.md"} | {
    ".ci", ".gitignore", "pyproject.toml", "setup.py", "constraints.txt", "Makefile", "mkdocs.yml",
    "MANIFEST.in", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md",
}  # fmt: skip
NBDEV_KEYS = {
    "repo", "lib_name", "version", "min_python", "license", "description", "keywords", "user",
    "author", "author_email", "branch", "copyright", "language", "status", "title", "nbs_path",
    "lib_path", "doc_path", "recursive", "readme_nb", "doc_host", "doc_baseurl", "git_url",
    "requirements", "console_scripts",
}  # fmt: skip
REQUIREMENTS = ("requirements", "lab_requirements", "dev_requirements")
# Built from parts so that this file does not hold what it looks for.
HOSTS = re.compile("|".join(
    ("py" + "pi\\.org", "python" + "hosted", "download\\.py" + "torch", "conda\\." + "anaconda",
     "registry\\." + "npmjs", "file:///" + "opt", "index-url" + r"[ =]+\w+://")
))  # fmt: skip


def settings() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(delimiters=["="])
    assert parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def pins() -> dict[str, str]:
    """Version of each package in constraints.txt; every line must be an exact pin, once."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found: dict[str, str] = {}
    for line in (line for line in lines if line and not line.startswith("#")):
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
        assert match, f"{line!r}: expected NAME==VERSION without a local version"
        name = canonicalize_name(match[1])
        assert name not in found, f"{name} is pinned twice"
        found[name] = match[2]
    return found


def test_settings_are_what_nbdev_needs():
    cfg = settings()
    assert set(cfg) >= NBDEV_KEYS
    assert cfg["lib_path"] == cfg["lib_name"] == "aqnet"
    # Without them nbdev_clean strips the tag `parameters`, and runs ignore their parameters.
    assert cfg["allowed_cell_metadata_keys"].split() == ["tags"]
    assert cfg["clear_all"] == "False"
    assert cfg["jupyter_hooks"] == "True"
    assert set(cfg["tst_flags"].split()) == {"notest", "slow", "gpu"}


@pytest.mark.parametrize("key", REQUIREMENTS)
def test_requirements_are_met_by_the_pins(key):
    wanted = [Requirement(text) for text in settings()[key].split()]
    known = pins()
    missing = [r.name for r in wanted if canonicalize_name(r.name) not in known]
    assert missing == [], "not pinned in constraints.txt"
    unmet = [str(r) for r in wanted if known[canonicalize_name(r.name)] not in r.specifier]
    assert unmet == []


def test_what_builds_the_package_is_pinned():
    assert {"pip", "setuptools", "wheel"} <= set(pins())
    assert pins()["nbdev"].startswith("2."), "nbdev 3 does not read settings.ini"


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    versions = {settings()["version"], aqnet.__version__, citation["version"]}
    assert len(versions) == 1
    assert f"## {aqnet.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_citation_names_every_data_source():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license"} <= set(citation)
    cited = {reference["doi"] for reference in citation["references"]}
    manifest = (ROOT / "data_manifests" / "beijing.yaml").read_text()
    named = set(re.findall(r"10\.\d{4,}/[A-Za-z0-9._-]*[A-Za-z0-9]", manifest))
    assert named and named <= cited


def test_top_level_holds_nothing_else():
    names = {path.relative_to(ROOT).parts[0] for path in repository_files()}
    assert names - TOP == set()
    assert TOP - names == set()


def test_no_file_names_a_package_registry():
    texts = {path: text_of(path) for path in repository_files()}
    found = {str(p.relative_to(ROOT)): HOSTS.findall(t) for p, t in texts.items() if t}
    assert {name: hosts for name, hosts in found.items() if hosts} == {}


@pytest.mark.parametrize("text", ["https://py" + "pi.org/simple", "--index-" + "url https://a.b"])
def test_the_registry_check_sees(text):
    assert HOSTS.search(text)


@pytest.mark.parametrize("folder", ["aqnet", "nbs", "tests", "data_manifests", "slurm", ".ci"])
def test_git_ignores_no_source(folder):
    # A rule `data/` without a leading slash also hides aqnet/data.
    names = [
        f"{p.relative_to(ROOT)}/new.py"
        for p in [ROOT / folder, *(ROOT / folder).rglob("*")]
        if p.is_dir() and "__pycache__" not in p.parts and "checkpoints" not in p.name
    ]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *names], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr


def test_index_links_every_notebook_and_nothing_that_is_missing():
    index = ROOT / "nbs" / "index.ipynb"
    cells = json.loads(index.read_text())["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    linked = set(re.findall(r"\]\(([^)]*\.ipynb)\)", text))
    notebooks = {p for p in repository_files() if p.suffix == ".ipynb" and p != index}
    assert linked == {str(p.relative_to(index.parent)) for p in notebooks}


def test_commands_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert {"demo", "test", "lab", "env"} <= named
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.M)] == []


def make(*arguments: str, cwd: Path) -> str:
    """What make would run; its own settings must not come through from `make test`."""
    ours = ("MAKE", "MFLAGS", "TORCH", "VENV", "PYTHON")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    done = subprocess.run(
        ["make", "-n", *arguments], cwd=cwd, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def fresh(tmp_path) -> Path:
    """What `make env` reads, in a folder without an environment."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    for name in ("Makefile", "constraints.txt", "settings.ini", "pyproject.toml", "setup.py"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def test_make_env_uses_the_pins_and_the_chosen_build_of_torch(fresh):
    plain = make("env", cwd=fresh)
    assert "-c .venv/pins.txt" in plain and "--no-deps" not in plain
    index = make("env", "TORCH_INDEX=INDEX", cwd=fresh)
    assert f"--no-deps --index-url 'INDEX' 'torch=={pins()['torch']}'" in index
    other = make("env", "TORCH=torch==2.8.0", cwd=fresh)
    assert "'torch==2.8.0'" in other and "sed '/^torch==/d' constraints.txt" in other


def test_the_choice_of_torch_is_remembered_and_a_new_one_rebuilds(fresh):
    def stamp(*arguments: str) -> str:
        return re.findall(r"touch ([\w./-]+)", make("env", *arguments, cwd=fresh))[0]

    chosen = stamp("TORCH=torch==2.8.0")
    assert chosen != stamp()
    (fresh / ".venv").mkdir()
    (fresh / ".venv" / "choices.mk").write_text("TORCH ?= torch==2.8.0\n")
    assert stamp() == chosen
    (fresh / chosen).touch()
    assert "Nothing to be done" in make("env", cwd=fresh)
    assert "venv --clear" in make("env", "TORCH=", cwd=fresh)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Folder with source distribution and wheel, made from what git would have."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in repository_files():
        place = source / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_wheel_holds_the_package_and_asks_for_run_time_needs_alone(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(next(n for n in names if n.endswith("/METADATA"))).decode()
    package = {str(p.relative_to(ROOT)) for p in repository_files() if p.is_relative_to(PACKAGE)}
    assert {name for name in names if ".dist-info/" not in name} == package
    asked = [Requirement(line.partition(": ")[2]) for line in metadata.splitlines()
             if line.startswith("Requires-Dist: ")]  # fmt: skip
    plain = {canonicalize_name(r.name) for r in asked if r.marker is None}
    assert plain == {canonicalize_name(Requirement(r).name)
                     for r in settings()["requirements"].split()}  # fmt: skip


def test_the_archive_says_what_it_holds(built):
    made = runpy.run_path(str(ROOT / ".ci" / "archive.py"))
    files = {"a.txt": b"one", "packages/b.whl": b"two"} | made["packages"](built)
    when = datetime(2026, 3, 1, 12, 30, 2, tzinfo=UTC)
    content = made["archive_bytes"](files, {"a.txt"}, when)
    assert content == made["archive_bytes"](dict(reversed(files.items())), {"a.txt"}, when)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        inside = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
        assert archive.infolist()[0].date_time == (2026, 3, 1, 12, 30, 2)
        modes = {e.filename.split("/", 1)[1]: e.external_attr >> 16 for e in archive.infolist()}
    assert modes.pop("a.txt") == 0o755 and set(modes.values()) == {0o644}
    lines = (line.split("  ") for line in inside.pop("SHA256SUMS").decode().splitlines())
    sums = {name: digest for digest, name in lines}
    assert inside == files
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def test_an_archive_beside_the_packages_is_none_of_them(tmp_path):
    made = runpy.run_path(str(ROOT / ".ci" / "archive.py"))
    name = f"aqnet-{aqnet.__version__}"
    for end in ("-py3-none-any.whl", ".tar.gz", "-archive.zip"):
        (tmp_path / f"{name}{end}").write_bytes(b"x")
    found = [f"packages/{name}-py3-none-any.whl", f"packages/{name}.tar.gz"]
    assert sorted(made["packages"](tmp_path)) == found


def test_scripts_of_the_archive_can_be_executed():
    files, executable = runpy.run_path(str(ROOT / ".ci" / "archive.py"))["tracked_files"]()
    scripts = {".ci/run", "nbs/experiments/worlds.sh", "slurm/local_cluster.sh"}
    assert scripts <= executable <= set(files) and "README.md" not in executable


def test_no_archive_without_packages(tmp_path):
    made = runpy.run_path(str(ROOT / ".ci" / "archive.py"))
    with pytest.raises(SystemExit, match="found nothing; make them with `make package`"):
        made["packages"](tmp_path)


def test_ci_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    lines = script.read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-2:] == ["make test", "make test-slurm"]
