"""Interpreter and packages of a process: what decides a result besides code, data, parameters."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import sys
from pathlib import Path

from aqnet.config import Config
from aqnet.io import sha256_json

__all__ = ["Environment", "present_environment"]

# Their versions stand in reports; all others are in the record only.
_MAIN = ("torch", "lightning", "numpy", "scipy", "xarray", "zarr", "netcdf4", "pandas", "pydantic",
         "papermill", "nbclient", "ipykernel", "matplotlib")  # fmt: skip
_OWN = "aqnet"  # recorded by version, git state and sources


class Environment(Config):
    """Interpreter, build of torch, and every installed distribution.

    Attributes
    ----------
    python : str
        Implementation and version.
    torch : dict
        version, cuda, hip (None where it was built without) and commit; empty without torch.
    distributions : dict
        Version by normalised name, of all but aqnet.
    sha256 : str
        Over the others.
    """

    python: str
    torch: dict[str, str | None]
    distributions: dict[str, str]
    sha256: str

    @property
    def main(self) -> dict[str, str]:
        """Versions of the packages whose choice can change a result."""
        return {name: self.distributions.get(name, "not installed") for name in _MAIN}

    def digest(self) -> str:
        """SHA-256 of the content, computed anew."""
        return sha256_json(self.model_dump(mode="json", exclude={"sha256"}))


def _distributions() -> dict[str, str]:
    """Version by name; the first on the path counts, as for imports.

    From the folders' names, which hold both (specification "Recording installed projects"): no
    file is opened, which would cost seconds on a parallel file system.
    """
    found: dict[str, str] = {}
    for folder in filter(Path.is_dir, map(Path, dict.fromkeys(sys.path))):
        for path in sorted(folder.glob("*.dist-info")):
            name, _, version = path.name.removesuffix(".dist-info").partition("-")
            found.setdefault(_normalised(name), version)
        for path in sorted(folder.glob("*.egg-info")):  # of old installers; rare
            one = importlib.metadata.Distribution.at(path)
            found.setdefault(_normalised(one.name), one.version)
    return {name: found[name] for name in sorted(found) if name != _OWN}


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _torch() -> dict[str, str | None]:
    """Build of torch from its file version.py: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    file = Path(spec.origin).with_name("version.py")
    one = importlib.util.spec_from_file_location("_version_of_torch", file)
    module = importlib.util.module_from_spec(one)
    one.loader.exec_module(module)
    names = {"version": "__version__", "cuda": "cuda", "hip": "hip", "commit": "git_version"}
    values = {name: getattr(module, attribute, None) for name, attribute in names.items()}
    return {name: None if value is None else str(value) for name, value in values.items()}


def present_environment() -> Environment:
    """The environment of this process."""
    fields = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "torch": _torch(),
        "distributions": _distributions(),
    }
    return Environment(**fields, sha256=sha256_json(fields))
