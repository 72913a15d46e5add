"""Finds code that runs data as code, leaves a check out, or believes a request's Host header. By syntax tree.

Names are followed through imports, so that `from os import system as s; s(...)` is os.system.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

MODULES = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch",  # unpickle
    "multiprocessing", "concurrent.futures.process",  # unpickle what another process wrote
}  # fmt: skip
NAMES = {
    "eval", "exec", "compile", "__import__",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell", "asyncio.subprocess.create_subprocess_shell",
    "concurrent.futures.ProcessPoolExecutor",
    "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all",
    "ssl.CERT_NONE", "ssl._create_unverified_context",
    "shutil.unpack_archive",
}  # fmt: skip
YAML_LOADS = {"yaml.load", "yaml.load_all"}
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader"}
KEYWORDS = {("shell", True), ("verify", False), ("allow_pickle", True), ("trusted", True), ("ssl", False)}
METHODS = {"extractall"}
BELIEVED = {"url", "base_url"}
"""Of a request: made from its Host header, which anybody may write (CVE-2026-48710)."""


def findings(source: str) -> set[str]:
    """What is dangerous in the text of a Python module."""
    tree = ast.parse(source)
    imports = list(_imports(tree))
    known = {local: bound for local, bound, _ in imports}
    found = {whole for _, _, whole in imports if any(f"{whole}.".startswith(f"{module}.") for module in MODULES)}
    for node in ast.walk(tree):
        found.update(_of(node, known))
    return found


def _imports(tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """(name here, what that name is, what was imported) of every import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                yield alias.asname or first, alias.name if alias.asname else first, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield alias.asname or alias.name, whole, whole


def _dotted(node: ast.AST, known: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, known)}.{node.attr}"
    return "?"


def _of(node: ast.AST, known: dict[str, str]) -> Iterator[str]:
    if isinstance(node, (ast.Name, ast.Attribute)) and (name := _dotted(node, known)) in NAMES:
        yield name
    if isinstance(node, ast.Attribute):
        if node.attr in METHODS:
            yield node.attr
        if node.attr in BELIEVED and _dotted(node.value, known).split(".")[-1] == "request":
            yield f"request.{node.attr}"
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Attribute) and target.attr == "check_hostname" and _is(node.value, False):
                yield "check_hostname=False"
    if isinstance(node, ast.Call):
        yield from _call(node, known)


def _call(node: ast.Call, known: dict[str, str]) -> Iterator[str]:
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    for name, value in KEYWORDS:
        if name in keywords and _is(keywords[name], value):
            yield f"{name}={value}"
    if _dotted(node.func, known) in YAML_LOADS:
        loader = keywords.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
        if loader is None or _dotted(loader, known) not in SAFE_LOADERS:
            yield "yaml.load"


def _is(node: ast.AST, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
