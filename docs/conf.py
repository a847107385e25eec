"""Sphinx configuration: Markdown through MyST, the reference from the docstrings. Warnings are errors (`-W`)."""

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

html_theme = "furo"
html_title = "rmtntk"
html_static_path: list[str] = []
