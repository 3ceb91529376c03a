"""Sphinx settings. `tools/build_docs.py` copies this folder and the notebooks to `_docs/source` and builds there."""
from __future__ import annotations

import re
import sys
from pathlib import Path

import pil_research

sys.path.insert(0, str(Path(__file__).resolve().parent / "_ext"))

project, author = "pil_research", "The pil_research developers"
copyright = "2026, The pil_research developers"
version = release = pil_research.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "mathml"]
exclude_patterns = ["_ext", "readme_start.md"]  # readme_start.md is included by get_started.md
nitpicky = False
suppress_warnings = ["mystnb.unknown_mime_type"]

nb_execution_mode = "off"  # pages show the outputs stored in the notebooks; the tests run them
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "fieldlist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_type_aliases = {name: name for name in ("ArrayLike", "Floats", "Bools", "Ints", "FloatArray", "Array", "Allocator")}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_validation_checks: set[str] = set()

html_theme = "pydata_sphinx_theme"
html_title = "pil_research"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {name: [] for name in ("index", "get_started", "pipeline", "limits")}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_end": ["theme-switcher"], "navbar_persistent": ["search-button"], "header_links_before_dropdown": 8,
    "show_toc_level": 2, "navigation_with_keys": False, "footer_start": ["copyright"], "footer_end": [],
    "secondary_sidebar_items": ["page-toc"], "show_prev_next": True, "collapse_navigation": False,
}
html_context = {"default_mode": "auto"}


def escape_marks(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Bars and wildcards in prose (`|W|`, `data/*.parquet`) are text, not markup; literals keep theirs."""
    for i, line in enumerate(lines):
        parts = re.split(r"(``.*?``)", line)
        parts[::2] = [re.sub(r"(?<!\\)\|", r"\|", re.sub(r"(?<=[\w/])\*(?=[.\w])", r"\*", p)) for p in parts[::2]]
        lines[i] = "".join(parts)


def setup(app: object) -> None:
    """Hook the escaping into autodoc."""
    app.connect("autodoc-process-docstring", escape_marks)  # type: ignore[attr-defined]
