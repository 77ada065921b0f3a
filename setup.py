"""What pyproject.toml cannot say: the folders of the checkout are the subpackages of ``fewseg``."""

from setuptools import find_packages, setup

FOLDERS = ("model", "dataset", "engine", "util")
DATA = ("config", "lists")
"""Files that the packages look for beside themselves: shipped configs, and counts to hold a copy against."""

packages = find_packages(include=[pattern for folder in FOLDERS for pattern in (folder, f"{folder}.*")])
setup(
    packages=["fewseg", *(f"fewseg.{name}" for name in (*packages, *DATA))],
    package_dir={f"fewseg.{folder}": folder for folder in (*FOLDERS, *DATA)},
    package_data={
        "fewseg.config": ["**/*.yaml"],
        "fewseg.lists": ["*/classes.txt", "*/folds_*.txt", "*/words.txt", "*/counts.json"],
    },
)
