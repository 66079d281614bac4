"""What holds for the source as a whole: imports go one way, nothing unsafe, nothing private."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "aqnet"
# A module may import from its own room and from rooms before it.
ROOMS = (
    {"__init__", "_modidx", "errors", "io", "config", "code_state", "launch", "progress"},
    {"variables", "units", "grid", "lambert_grid", "metrics", "events"},
    {"data"},
    {"model"},
    {"training"},
    {"verification"},
    {"jobs"},
    {"explore"},
    {"cli"},
)
JUPYTER = ("nbdev", "fastcore", "IPython", "papermill", "nbformat", "nbclient", "jupyter_client",
           "ipywidgets")  # fmt: skip
NEEDS_JUPYTER = {
    "aqnet.jobs.compile",
    "aqnet.jobs.execute",
    "aqnet.jobs.kernel",
    "aqnet.jobs.notebook_end",
    "aqnet.explore.controls",
    "aqnet.explore.explorers",
}


def modules() -> dict[str, Path]:
    """Dotted names of all modules of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> int:
    """Position in ROOMS."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else "__init__"
    places = [i for i, room in enumerate(ROOMS) if name in room]
    assert places, f"{module} is in no room; expected one of {ROOMS}"
    return places[0]


def imported(source: str, module: str, is_package: bool) -> set[str]:
    """Modules of aqnet that a source imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = node.level - (1 if is_package else 0)
                home = module.split(".")
                base = ".".join(filter(None, [*home[: len(home) - up], base]))
            # `from aqnet import io` imports aqnet.io
            names = [a.name for a in node.names] if base == "aqnet" else []
            found |= {f"aqnet.{name}" for name in names if not name.startswith("__")} or {base}
    return {name for name in found if name == "aqnet" or name.startswith("aqnet.")}


def wrong_imports(module: str, source: str, is_package: bool = False) -> list[str]:
    """Imports from a later room."""
    room = room_of(module)
    names = imported(source, module, is_package)
    return sorted(name for name in names if room_of(name) > room)


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module):
    path = modules()[module]
    assert wrong_imports(module, path.read_text(), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("aqnet.io", "from aqnet.data import store", ["aqnet.data"]),
        ("aqnet.io", "def f():\n    import aqnet.grid", ["aqnet.grid"]),
        ("aqnet.data.store", "from ..model import vit", ["aqnet.model"]),
        ("aqnet.data.store", "from aqnet import cli, io", ["aqnet.cli"]),
        ("aqnet.data.store", "from .stations.samples import x\nfrom ..io import y", []),
        ("aqnet.cli", "import aqnet.jobs.runs\nimport aqnet", []),
    ],
)
def test_the_import_check_sees_every_form(module, source, wrong):
    assert wrong_imports(module, source) == wrong


def test_the_model_knows_no_ranks():
    """What a forward pass reads was built before: nothing in it waits for another process."""
    sources = {name: path.read_text() for name, path in modules().items()}
    users = [name for name, text in sources.items()
             if re.search(r"\bdistributed\b|\bdist\.|[Ff]abric", text)]  # fmt: skip
    assert "aqnet.training.step" in users
    assert [name for name in users if name.startswith(("aqnet.model.", "aqnet.data."))] == []


def test_package_imports_without_development_and_notebook_tools():
    names = [name for name in modules() if name not in NEEDS_JUPYTER]
    code = (
        "import sys, importlib\n"
        f"for name in {names!r}:\n    importlib.import_module(name)\n"
        f"print(*sorted(set({JUPYTER!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def lost_references(source: str) -> list[str]:
    """Names `aqnet.x.y` in back quotes that lead to nothing."""
    lost, known = [], modules()
    for name in sorted(set(re.findall(r"`(aqnet(?:\.\w+)+)`", source))):
        parts = name.split(".")
        home = max(k for k in range(1, len(parts) + 1) if ".".join(parts[:k]) in known)
        found = importlib.import_module(".".join(parts[:home]))
        for part in parts[home:]:
            fields = getattr(found, "__annotations__", {})  # of a dataclass, without a default
            found = getattr(found, part, fields.get(part))
        if found is None:
            lost.append(name)
    return lost


@pytest.mark.parametrize("module", modules())
def test_what_docstrings_refer_to_exists(module):
    assert lost_references(modules()[module].read_text()) == []


def test_the_check_of_references_sees_what_is_lost():
    names = ["aqnet.grid.Grid.patches", "aqnet.grid", "aqnet.grid.Lost", "aqnet.lost.Grid"]
    assert lost_references(" ".join(f"`{n}`" for n in names)) == names[2:]


# Hooks whose meaning torch and Lightning define; the docstring of the class says the rest.
HOOK = re.compile(
    r"forward|(training|validation|test|predict)_step|configure_\w+|on_\w+|setup|teardown|"
    r"prepare_data|\w+_dataloader|(load_)?state_dict|reset_parameters"
)


def undocumented(source: str) -> list[str]:
    """Public functions, classes and methods without a docstring."""
    found = []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if not isinstance(node, kinds) or node.name.startswith("_"):
                continue
            if prefix and HOOK.fullmatch(node.name):
                continue
            if ast.get_docstring(node) is None:
                found.append(f"line {node.lineno}: {prefix}{node.name}")
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{node.name}.")

    visit(ast.parse(source).body, "")
    return found


@pytest.mark.parametrize("module", modules())
def test_public_names_have_docstrings(module):
    assert undocumented(modules()[module].read_text()) == []


@pytest.mark.parametrize("module", modules())
def test_the_first_line_of_a_module_is_a_whole_sentence(module):
    """Of a notebook nbdev takes only the first line behind `>`."""
    text = ast.get_docstring(ast.parse(modules()[module].read_text())) or "Made by nbdev."
    first, *rest = text.splitlines()
    assert first.endswith((".", "?")) or (first.endswith(":") and rest), first


def test_the_docstring_check_sees_what_is_missing():
    methods = "".join(f"    def {name}(self): ...\n" for name in ("g", "_h", "forward"))
    source = f"def f(): ...\nclass A:\n    'x'\n{methods}"
    assert undocumented(source) == ["line 1: f", "line 4: A.g"]


# ---- text that must not be in the repository

# Built from parts so that this file does not contain what it looks for.
FORBIDDEN = {
    "a folder of the build machine": r"/" + r"(?:work|tmp/w)/",
    "a temporary folder of a kernel": r"/tmp/" + r"ipykernel_\d",
    "a home folder": r"/(?:home|Users)/" + r"(?!me/)[a-z0-9_.-]+/",
    "root's home folder": r"/ro" + r"ot/",
    "unpickling": r"\bpickle" + r"\.loads?\b",
    "YAML that can run code": r"\byaml" + r"\.(?:load|unsafe_load|full_load)\(",
    "a checkpoint that can run code": r"weights_only" + r"\s*=\s*False",
}


def repository_files() -> list[Path]:
    """Files that git tracks or would add; all of them outside ignored folders without git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def text_of(path: Path) -> str | None:
    """Content of a text file; None for binary data."""
    content = path.read_bytes()
    return None if b"\0" in content[:8192] else content.decode("utf-8")


def forbidden_in(text: str) -> list[str]:
    """What the text holds that it must not, with its line."""
    return [
        f"line {text.count(chr(10), 0, match.start()) + 1}: {what}: {match.group()}"
        for what, pattern in FORBIDDEN.items()
        for match in re.finditer(pattern, text)
    ]


def test_no_file_names_a_machine_or_reads_unsafely():
    texts = {path: text_of(path) for path in repository_files()}
    assert PACKAGE / "errors.py" in texts
    found = {str(p.relative_to(ROOT)): forbidden_in(t) for p, t in texts.items() if t is not None}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "text",
    [
        "/wo" + "rk/shared",
        "/ho" + "me/anna/data",
        "/tm" + "p/ipykernel_123/456.py",
        "/ro" + "ot/.cache",
        "pick" + "le.load(f)",
        "ya" + "ml.load(f)",
        "torch.load(f, weights_only" + "=False)",
    ],
)
def test_the_text_check_sees_each_kind(text):
    assert len(forbidden_in(f"first line\n{text}\n")) == 1
    assert forbidden_in("yaml.safe_load(text)\n/home/me/aqnet/\npickled\n") == []
