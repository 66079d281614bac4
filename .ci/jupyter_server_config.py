"""JupyterLab of this environment saves notebooks as nbdev_clean would leave them."""

from pathlib import Path

from nbdev.clean import clean_jupyter


def clean_on_save(path: str, model: dict, **rest: object) -> None:
    """Clean a notebook that exists: for a new one nbdev only logs a traceback."""
    if Path(path).is_file():
        clean_jupyter(path=path, model=model, **rest)


c.ContentsManager.pre_save_hook = clean_on_save  # noqa: F821  (jupyter defines c)
