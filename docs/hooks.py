"""MkDocs calls the functions named on_... while it builds the site (mkdocs.yml names this file).

A line ``::: owl.zeros owl.ones`` in a page becomes the reference of these names. Docstrings come from the imported
package, whose module is compiled; signatures from its type stubs, or from Python sources.
"""

import ast
import enum
import importlib
import inspect
import re
import textwrap
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from pygments.formatters import HtmlFormatter

import owl

ROOT = Path(__file__).resolve().parents[1]

# Documents outside docs/ that are pages of the site too.
ELSEWHERE = {"benchmarks.md": "benchmarks/results.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}

LINK = re.compile(r"(\[[^\]]*\])\(((?![a-z]+:)[^)#\s]+)((?:#[^)\s]*)?)\)")
DIRECTIVE = re.compile(r"^::: (.+)$", re.MULTILINE)
WIDTH = 88  # columns of a signature on one line


# ---- MkDocs ---------------------------------------------------------------------------------------------------------


def on_files(files, config):
    for name, source in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    colours = HtmlFormatter(style="default").get_style_defs(".highlight")
    files.append(File.generated(config, "pygments.css", content=colours))
    return files


def on_page_markdown(markdown, page, config, files):
    uri = page.file.src_uri
    source = ROOT / ELSEWHERE.get(uri, f"docs/{uri}")
    pages = {(ROOT / ELSEWHERE.get(name, f"docs/{name}")): name for name in (file.src_uri for file in files)}

    def link(match):
        text, path, anchor = match.groups()
        target = (source.parent / path).resolve()
        if target in pages:  # from relative to the file to relative to the page
            up = "../" * uri.count("/")
            return f"{text}({up}{pages[target]}{anchor})"
        return text[1:-1] if target.exists() else match[0]  # a repository file, or a broken link for MkDocs

    markdown = "".join(part if part.startswith("```") else LINK.sub(link, part) for part in split_at_fences(markdown))
    return DIRECTIVE.sub(lambda match: "\n".join(reference(name) for name in match[1].split()), markdown)


def on_page_content(content, page, config, files):
    """Marks a program's output in columns, which must not wrap (docs/site.css)."""

    def mark(match):
        code = match[1]
        in_columns = "<span class" not in code and re.search(r"\S {2,}\S|[\u2500-\u257f]", code)
        return match[0].replace("<pre>", '<pre class="columns">', 1) if in_columns else match[0]

    return re.sub(r'<div class="highlight"><pre>(.*?)</pre>', mark, content, flags=re.DOTALL)


def split_at_fences(markdown):
    """The text in parts, each a fenced block or the text between two."""
    return re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)


# ---- The reference --------------------------------------------------------------------------------------------------


class Stub:
    """The definitions in a .pyi file by name, those of classes as Class.name."""

    def __init__(self, path):
        self.nodes = {}
        self._add(ast.parse(path.read_text(encoding="utf-8")).body, "")

    def _add(self, nodes, prefix):
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                self.nodes[prefix + node.name] = node
            if isinstance(node, ast.ClassDef):
                self._add(node.body, f"{prefix}{node.name}.")

    def members(self, name):
        return [full.rpartition(".")[2] for full in self.nodes if full.rpartition(".")[0] == name]


STUBS = {f"owl.{path.stem}" if path.stem != "_owl" else "owl": Stub(path) for path in (ROOT / "owl").glob("*.pyi")}


def lookup(name):
    """The object, the module's name and the name inside the module."""
    for module in ("owl.elewise", "owl.conv", "owl.data", "owl.nn.init", "owl.nn", "owl.optim", "owl.train", "owl"):
        if name.startswith(module + "."):
            inner = name.removeprefix(module + ".")
            found = importlib.import_module(module)
            try:
                for part in inner.split("."):
                    found = getattr(found, part)
            except AttributeError as error:
                raise PluginError(f"the reference names {name}: {error}") from None
            return found, module, inner
    raise PluginError(f"the reference names {name}, which is not owl's")


def reference(name, level=3):
    """The heading, signature and text of a function or class, then of its public members; or of a whole module."""
    if name == "owl.elewise":
        return "\n".join(reference(f"{name}.{each}") for each in importlib.import_module(name).__all__)
    found, module, inner = lookup(name)
    stub = STUBS.get(module)
    node = stub.nodes.get(inner) if stub and not (module == "owl" and is_python(found)) else None
    lines = [f"{'#' * level} {name if level == 3 else inner} {{#{name}}}", ""]
    if not is_attribute(found):
        shown = signature(found, init_of(node, stub, inner), inner)
        if shown:
            lines += ["```python", f"{shown}", "```", ""]
    elif isinstance(node, ast.FunctionDef) and node.returns is not None:
        lines += ["```python", f"{inner}: {ast.unparse(node.returns)}", "```", ""]
    text = inspect.getdoc(found)
    if not text:
        raise PluginError(f"{name} has no docstring")
    if isinstance(found, type) and issubclass(found, owl.Error) and found is not owl.Error:
        bases = [f"``{'owl.' * (base is owl.Error)}{base.__name__}``" for base in found.__bases__]
        text += f"\n\nDerived from {' and '.join(bases)}."
    lines += [to_markdown(text), ""]
    if isinstance(found, type):
        plain = [each for each in members(found, stub, inner) if is_attribute(getattr(found, each))
                 and not inspect.getdoc(getattr(found, each))]  # fmt: skip
        if hasattr(found, "_fields"):
            lines += [*fields(found), ""]
            plain = members(found, stub, inner)
        elif plain:
            lines += [f"Attributes: {', '.join(f'`{each}`' for each in plain)}.", ""]
        for member in members(found, stub, inner):
            if member not in plain:
                lines.append(reference(f"{name}.{member}", level + 1))
    return "\n".join(lines)


def init_of(node, stub, inner):
    return stub.nodes.get(f"{inner}.__init__") if isinstance(node, ast.ClassDef) else node


def is_python(found):
    """Whether it is Python code, which has its own signature (the compiled module may have one of the same name)."""
    return inspect.isfunction(found.__init__ if isinstance(found, type) else found)


def is_attribute(found):
    return not callable(found) and inspect.isdatadescriptor(found)


def fields(cls):
    """The table of a named tuple's fields: names, types, and their ``#:`` comments in the source."""
    rows = ["| field | type | |", "|---|---|---|"]
    for name, kind, text in re.findall(r"^    (\w+): ([^#\n]+?)\s*(?:#: (.*))?$", inspect.getsource(cls), re.MULTILINE):
        rows.append(f"| `{name}` | `{kind}` | {text.replace('``', '`')} |")
    return rows


def members(cls, stub, inner):
    """Public members with documentation, in the order of the stub or the class."""
    names = stub.members(inner) if stub and inner in stub.nodes else list(vars(cls))
    return [
        name
        for name in dict.fromkeys(names)
        if not name.startswith("_")
        and (callable(getattr(cls, name)) or inspect.isdatadescriptor(getattr(cls, name)))
        and not isinstance(getattr(cls, name), cls)  # an enumeration's values
        and not hasattr(tuple, name)
    ]


def signature(found, node, inner):
    """The call with types: ``zeros(shape: Shape, dtype: DTypeLike | None = None) -> NArray``; "" if there is none."""
    if isinstance(found, type) and issubclass(found, (Exception, tuple, enum.Enum)):
        return ""
    if node is None and is_python(found):
        node = python_function(found)
    if not isinstance(node, ast.FunctionDef):
        return ""
    method = "." in inner or node.name == "__init__"
    arguments = [part for part in split_arguments(ast.unparse(node.args)) if not (method and part == "self")]
    arguments = [re.sub(r"(: [^=]+)=", r"\1 = ", part) for part in arguments]
    result = "" if node.name == "__init__" or node.returns is None else f" -> {ast.unparse(node.returns)}"
    name = inner.rpartition(".")[2]
    line = f"{name}({', '.join(arguments)}){result}"
    if len(line) > WIDTH:
        line = "\n".join([f"{name}(", *(f"    {part}," for part in arguments), f"){result}"])
    return re.sub(r"(?<![\w.])_(\w)", r"\1", line)  # private names of types and modules


def python_function(found):
    """The definition of a function or of a class's __init__ in its source, with its module's constants filled in."""
    function = inspect.unwrap(found.__init__ if isinstance(found, type) else found)
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    values = {name: value for name, value in function.__globals__.items() if isinstance(value, (int, float, str))}
    for defaults in (node.args.defaults, node.args.kw_defaults):
        defaults[:] = [ast.Constant(values[each.id]) if isinstance(each, ast.Name) and each.id in values else each
                       for each in defaults]  # fmt: skip
    return node


def split_arguments(text):
    """Splits at the commas outside brackets."""
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    parts.append(text[start:].strip())
    return [part for part in parts if part]


def to_markdown(text):
    """Converts a docstring: literals in double backquotes, examples after >>>, errors as separate paragraphs."""
    text = re.sub(r"\A\w+\(.*\) -> .*\n+", "", text)  # pybind11 puts a signature first
    result = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = paragraph.splitlines()
        if any(line.lstrip().startswith(">>> ") for line in lines):
            result.append("\n".join(["```pycon", *lines, "```"]))
            continue
        if all(line.startswith("    ") for line in lines):
            result.append("\n".join(["```text", *lines, "```"]))
            continue
        pieces = re.split(r"(``.*?``|`[^`]+`)", re.sub(r":(?:func|class|meth):`", "`", paragraph), flags=re.DOTALL)
        prose = "".join(f"`{piece.strip('`')}`" if piece.startswith("`") else escape(piece) for piece in pieces)
        result.append("Raises " + prose if re.match(r"`\w+Error`: ", prose) else prose)
    return "\n\n".join(result)


def escape(prose):
    """Escapes Markdown in the text; names of errors become code."""
    prose = re.sub(r"([*\[\]_])", r"\\\1", prose).replace("<", "&lt;")
    return re.sub(r"\b(\w+Error)(?=: )", r"`\1`", prose)
