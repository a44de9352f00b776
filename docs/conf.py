"""How Sphinx builds these pages, by `make docs`. The reference comes from the package's docstrings."""

from slimjax.versions import package_versions

project = "slimjax"
version = release = package_versions()["slimjax"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["figures"]
# As GitHub names them, so that links work there too.
myst_heading_anchors = 3

# Docstrings are written for those who read the source, where single backticks are code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_numpy_docstring = False
# Other projects' types: their documentation is elsewhere, and building needs no network.
nitpick_ignore_regex = [("py:.*", r"(collections|concurrent|jax|numpy|os|pathlib)\..*")]

html_theme = "furo"
html_title = f"slimjax {version}"
html_copy_source = html_show_sourcelink = html_show_copyright = False
