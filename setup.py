"""Package metadata from settings.ini, the one place where nbdev and setuptools read it."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_namespace_packages, setup

settings = ConfigParser(delimiters=["="])
settings.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
cfg = settings["DEFAULT"]


def requirements(key: str) -> list[str]:
    return cfg[key].split()


lab = requirements("lab_requirements")
setup(
    version=cfg["version"],
    description=cfg["description"],
    author=cfg["author"],
    keywords=cfg["keywords"].split(),
    # namespace: the folder of the report's templates holds no Python
    packages=find_namespace_packages(include=["aqnet", "aqnet.*"], exclude=["*.__pycache__"]),
    package_data={
        "aqnet": [
            "verification/templates/*.j2",
            "verification/foreign/layouts/*.yaml",
            "verification/tables/*",
        ]
    },
    install_requires=requirements("requirements"),
    extras_require={"lab": lab, "dev": lab + requirements("dev_requirements")},
    entry_points={"console_scripts": [cfg["console_scripts"]]},
)
