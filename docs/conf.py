"""Configuration of the documentation; `make docs` builds it with warnings as errors."""

import ast
import inspect
import re
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing
from sphinx.util.typing import stringify_annotation

import throughline

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Throughline"
author = "The Throughline developers"
copyright = author
release = throughline.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "board",
    "papers",
    "verdicts",
]
exclude_patterns = ["_build", "examples", "usage", "results", "generated/areas", "generated/backreferences", "**/*.zip"]
nitpicky = False
default_role = "py:obj"  # `name` in a docstring links when it names something of ours, and is code otherwise
templates_path: list[str] = []

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]  # sphinx-gallery's settings hold functions

autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "  # what is copied is what one types, without prompts and output
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "subsection_order": [
        f"examples/{area}" for area in ("sensing", "discrete", "search", "geometry", "physics", "continual", "core")
    ],
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("throughline",),
    "filename_pattern": r"plot_",
    "capture_repr": (),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1_000,
}

html_theme = "pydata_sphinx_theme"
html_title = "Throughline"
html_static_path = ["_static"]
html_css_files = ["throughline.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "Throughline"},
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
}
PLAIN = ("index", "start", "concepts", "own-data", "your-claim", "cluster", "own-board", "add-a-paper")
html_sidebars = {page: [] for page in PLAIN}


def skip_what_scikit_learn_adds(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the metadata methods that scikit-learn writes into every estimator class."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def document_fields(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Give a field of a named tuple or dataclass the comment that stands beside it in the source, if there is one."""
    if what != "attribute" or any(line.strip() and not line.startswith("Alias for field number") for line in lines):
        return
    module, owner, field = name.rsplit(".", 2)
    said = field_comments(getattr(sys.modules.get(module), owner, None)).get(field, "")
    lines[:] = [re.sub(r"([\\*_|])", r"\\\1", said)] if said else []


@cache
def field_comments(owner: Any) -> dict[str, str]:
    """The comments at the ends of the lines in which a class declares its fields, by field."""
    if not inspect.isclass(owner):
        return {}
    source = textwrap.dedent(inspect.getsource(owner)).splitlines()
    (tree,) = ast.parse("\n".join(source)).body
    fields = [node for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    comments = {node.target.id: source[node.end_lineno - 1][node.end_col_offset :] for node in fields}
    found = {field: re.match(r"\s*# (?!type:|noqa)(.+)", comment) for field, comment in comments.items()}
    return {field: comment[1] for field, comment in found.items() if comment}


def name_array_types(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Write the aliases of numpy.typing, which a signature holds spelt out over several lines, by their names."""
    return tuple(
        text and re.sub(NDARRAY, r"NDArray[\1]", text.replace(ARRAY_LIKE, "ArrayLike")) for text in (signature, returns)
    )


ARRAY_LIKE = stringify_annotation(numpy.typing.ArrayLike, "smart")
NDARRAY = (
    r"~?(?:numpy\.)?ndarray\[~?(?:builtins\.)?tuple\[~?(?:typing\.)?Any, \.\.\.\], ~?(?:numpy\.)?dtype\[([^\[\]]+)\]\]"
)


def setup(app: Any) -> None:
    app.connect("autodoc-skip-member", skip_what_scikit_learn_adds)
    app.connect("autodoc-process-docstring", document_fields)
    app.connect("autodoc-process-signature", name_array_types)
