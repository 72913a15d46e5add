"""Which format a model has, decided by its content, never by its name."""

from __future__ import annotations

import ast
import warnings
import zipfile
from pathlib import Path
from typing import Final, Literal

from model_server.errors import LoadFailure, Reason
from model_server.models import onnx_file, pickles

Kind = Literal["onnx", "skops", "python"]

_MAX_SOURCE_BYTES: Final = 4 * 1024**2
_KNOWN: Final = (
    (b"\x93NUMPY", "a numpy array"),
    (b"\x89HDF\r\n", "HDF5 (Keras)"),
    (b"\x7fELF", "a native library"),
    (b"GGUF", "GGUF"),
    (b"<", "a web page or XML"),
)
_SERVED: Final = "this server serves ONNX, skops and Python models"


def detect(path: Path) -> Kind:
    """The format of the model at `path`, a file or (for Python) a directory.

    LoadFailure: UnsafeFormat for pickles, UnsupportedFormat for anything else that isn't served.
    """
    if path.is_dir():
        return _directory(path)
    pickles.refuse(path)
    if onnx_file.is_onnx(path):
        return "onnx"
    if zipfile.is_zipfile(path):
        return _zip(path)
    if _is_python(path):
        return "python"
    raise LoadFailure(Reason.UNSUPPORTED_FORMAT, f"{path.name} is {_described(path)}; {_SERVED}")


def _directory(path: Path) -> Kind:
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    for file in files:
        if file.suffix != ".py":
            pickles.refuse(file)
    if any(file.suffix == ".py" for file in files):
        return "python"
    names = ", ".join(str(file.relative_to(path)) for file in files[:5])
    raise LoadFailure(
        Reason.UNSUPPORTED_FORMAT,
        f"{len(files)} files ({names}) and no Python source among them: name the one file that is the model",
    )


def _zip(path: Path) -> Kind:
    with zipfile.ZipFile(path) as archive:
        if "schema.json" in archive.namelist():
            return "skops"
    raise LoadFailure(Reason.UNSUPPORTED_FORMAT, f"{path.name} is a zip without skops' schema.json; {_SERVED}")


def _is_python(path: Path) -> bool:
    if path.stat().st_size > _MAX_SOURCE_BYTES:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model's source may warn; it isn't run here
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, ast.ClassDef | ast.Import | ast.ImportFrom) for node in tree.body)


def _described(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "empty"
    if pickles.is_compressed(head):
        return "compressed (unpack it before publishing)"
    return next((what for magic, what in _KNOWN if head.startswith(magic)), "no model that is known here")
