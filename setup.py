"""Packaging facts come from settings.ini, which nbdev reads too; this file only hands them to setuptools."""
from configparser import ConfigParser
from pathlib import Path
from shlex import split

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
config = ConfigParser(delimiters=["="])
config.read(HERE / "settings.ini", encoding="utf-8")
facts = config["DEFAULT"]
readme = HERE / "README.md"

setup(
    name=facts["lib_name"],
    version=facts["version"],
    description=facts["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    author=facts["author"],
    author_email=facts["author_email"],
    license="Apache-2.0",
    keywords=split(facts["keywords"]),
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Financial and Insurance Industry",
        "Intended Audience :: Science/Research",
        "Natural Language :: English",
        "Programming Language :: Python :: 3",
        "Topic :: Office/Business :: Financial :: Investment",
    ],
    packages=find_packages(include=["pil_research", "pil_research.*"]),
    package_data={"pil_research": ["py.typed", "research/*.json"]},
    include_package_data=True,
    python_requires=f">={facts['min_python']}",
    install_requires=split(facts["requirements"]),
    extras_require={name: split(facts[f"{name}_requirements"]) for name in (
        "research", "accel", "dask", "live", "yfinance", "dev")},
    entry_points={"console_scripts": split(facts["console_scripts"])},
)
