"""Sphinx configuration: Markdown through MyST, the reference from the docstrings. Warnings are errors (`-W`)."""

import re

import rmtntk

project = "rmtntk"
author = "The rmtntk developers"
version = release = rmtntk.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "conftest.py"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

smartquotes = False  # quotation marks are code here more often than not

html_theme = "furo"
html_title = "rmtntk"
html_static_path: list[str] = []

_REQUESTS = "set_fit_request, set_predict_request, set_score_request, set_transform_request, get_metadata_routing"
autodoc_default_options = {"exclude-members": f"function, derivative_function, {_REQUESTS}"}


def _escape(_app, _what, _name, _obj, _options, lines):
    """|x| is a norm in our docstrings and coef_ a name; reStructuredText sees substitutions and links."""
    formula = False
    for k, line in enumerate(lines):
        if line.strip():
            formula = ".. math::" in line or (formula and line.startswith(" "))
            if not formula:
                line = line.replace("|", r"\|")
                lines[k] = line if re.match(r"\s*\w+_ :", line) else re.sub(r"\b(\w+)_(?=[\s.,;:)]|$)", r"\1\\_", line)


def setup(app):
    """Register the hook, before napoleon reads the lines."""
    app.connect("autodoc-process-docstring", _escape, priority=400)
