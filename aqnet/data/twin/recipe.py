"""A twin's configuration as the recipe of a manifest, and manifests of other worlds."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import load_manifest, resolve_manifest
from aqnet.data.twin.config import TwinConfig
from aqnet.errors import ManifestError, explain
from aqnet.io import atomic_write_text, sha256_json

__all__ = ["derived_manifest", "settings_of", "twin_config", "twin_manifest", "write_manifest"]


def settings_of(config: TwinConfig) -> dict:
    """All settings as plain values: what `recipe.settings` of a manifest holds."""
    return config.model_dump(mode="json")


def twin_manifest(name_or_path: str | Path = "twin") -> GridManifest:
    """Read the manifest of a twin.

    Raises
    ------
    ManifestError
        There is none, or it is not the manifest of a twin.
    """
    manifest = load_manifest(resolve_manifest(name_or_path))
    if not isinstance(manifest, GridManifest) or not manifest.synthetic:
        message = explain(
            f"{name_or_path} is not the manifest of a twin",
            expected="kind: grid and synthetic: true",
            found=f"the manifest {manifest.name}",
            remedy="name twin, or a manifest that `aqnet data twin` wrote beside its stores",
        )
        raise ManifestError(message)
    return manifest


def twin_config(manifest: GridManifest) -> TwinConfig:
    """Configuration of a twin's manifest.

    Raises
    ------
    ManifestError
        Its settings are not exactly the fields of `TwinConfig`, or contradict the manifest.
    """
    settings = manifest.recipe.settings
    try:
        config = TwinConfig.model_validate(settings)
    except ValidationError as problem:
        message = explain(
            f"the recipe of manifest {manifest.name} is not a world of the twin",
            expected="settings as `aqnet data twin --print-settings` prints them",
            found="; ".join(
                f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in problem.errors()
            ),
            remedy="correct recipe.settings",
        )
        raise ManifestError(message) from problem
    whole = settings_of(config)
    lacking = [key for key in whole if key not in settings]
    lacking += [f"{group}.{key}" for group, value in whole.items() if isinstance(value, dict)
                for key in value if group in settings and key not in settings[group]]  # fmt: skip
    if lacking:
        message = explain(
            f"the recipe of manifest {manifest.name} does not state all settings",
            expected="every setting, so that the digest changes with any of them",
            found=f"missing: {', '.join(lacking)}",
            remedy="put what `aqnet data twin --print-settings` prints under recipe.settings",
        )
        raise ManifestError(message)
    if config.grid != manifest.grid or config.utc_offset_h != manifest.source_utc_offset_h:
        message = explain(
            f"manifest {manifest.name} contradicts its own recipe",
            expected=f"grid {manifest.grid}, utc_offset_h {manifest.source_utc_offset_h:g}",
            found=f"grid {config.grid}, utc_offset_h {config.utc_offset_h}",
            remedy="correct recipe.settings",
        )
        raise ManifestError(message)
    return config


def derived_manifest(
    base: GridManifest, config: TwinConfig, name: str | None = None
) -> GridManifest:
    """Manifest of another world; `name` by default `twin-` and 8 digits of its settings' digest.

    Years, splits and everything else are those of `base`, but for what the settings decide: the
    grid, and whether the elevation is constant (`constant_static`).
    """
    settings = settings_of(config)
    name = name or f"twin-{sha256_json(settings)[:8]}"
    content = base.model_dump(mode="json")
    content |= {"name": name, "grid": config.grid}
    content["recipe"] = content["recipe"] | {"settings": settings}
    flat = ["elevation"] if config.written_terrain == "flat" else []
    content["constant_static"] = flat + [n for n in base.constant_static if n != "elevation"]
    return GridManifest.model_validate(content)


def write_manifest(manifest: GridManifest, folder: str | Path) -> Path:
    """Write a manifest beside its stores, `NAME.yaml`, and return the path."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / f"{manifest.name}.yaml"
    text = yaml.safe_dump(manifest.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    atomic_write_text(
        path, "# Written by `aqnet data twin`: a world with settings of its own.\n" + text
    )
    return path
