"""Models written in Python: a class with `predict`, from one .py file or a directory of them.

This runs the model's code with all the rights of the pod: it is for code that its owner wrote. A model's inputs and
outputs are checked, what it does in between is not.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from model_server.errors import Code, LoadFailure, Problem, Reason, first_line
from model_server.models.base import Metadata
from model_server.models.tensors import DATATYPES, Array, Tensors, TensorSpec, datatype_of


class PythonModel:
    """An instance of the user's class; `predict` is called from as many threads as the server has slots."""

    computes_only = False

    def __init__(self, path: Path, entrypoint: str) -> None:
        """Import `path`, make the class, call its `load`. LoadFailure(LoadFailed) with what the code raised."""
        directory = path if path.is_dir() else path.parent
        module_name, _, class_name = entrypoint.partition(":")
        module = _import_package(path, module_name) if path.is_dir() else _import_file(path, module_name)
        found = _class(module, class_name)
        self._instance = _made(found, directory)
        self.metadata = Metadata("python", _specs(self._instance, "inputs"), _specs(self._instance, "outputs"))

    def predict(self, inputs: Tensors) -> Tensors:
        """See Model. A ValueError of the user's code means that the input is to blame."""
        try:
            returned = self._instance.predict(dict(inputs))
        except ValueError as error:
            raise Problem(Code.BAD_INPUT, f"the model refused the input: {first_line(error)}") from error
        named = returned if isinstance(returned, Mapping) else {"output": returned}
        return {str(name): _array(str(name), value) for name, value in named.items()}


def _import_package(directory: Path, name: str) -> ModuleType:
    sys.path.append(str(directory))  # last: a model can't take the place of an installed module
    importlib.invalidate_caches()
    name = name or _only_module(directory)
    module = _imported(name, lambda: importlib.import_module(name))
    if not Path(module.__file__ or "/").resolve().is_relative_to(directory.resolve()):
        raise LoadFailure(Reason.LOAD_FAILED, f"{name!r} is the name of an installed module: rename the model's")
    return module


def _only_module(directory: Path) -> str:
    modules = [file.stem for file in directory.glob("*.py")]
    if len(modules) == 1:
        return modules[0]
    raise LoadFailure(
        Reason.LOAD_FAILED, f"the model has {len(modules)} modules at its top: name one with entrypoint pkg.mod:Class"
    )


def _import_file(path: Path, name: str) -> ModuleType:
    """One file is imported whatever it is called, with or without .py."""
    if name and name != path.stem:
        raise LoadFailure(
            Reason.LOAD_FAILED,
            f"the model is one file, {path.name}: its entrypoint begins with {path.stem}, not {name}",
        )
    if path.stem in sys.modules:
        raise LoadFailure(Reason.LOAD_FAILED, f"{path.stem!r} is the name of another module: rename the model's file")
    loader = SourceFileLoader(path.stem, str(path))
    module = module_from_spec(ModuleSpec(path.stem, loader, origin=str(path)))
    module.__file__ = str(path)
    sys.modules[path.stem] = module
    _imported(path.stem, lambda: loader.exec_module(module))
    return module


T = TypeVar("T")


def _imported(name: str, run: Callable[[], T]) -> T:
    sys.dont_write_bytecode = True  # the model's directory stays as it was hashed
    try:
        return run()
    except BaseException as error:
        raise LoadFailure(Reason.LOAD_FAILED, f"importing {name!r} raised {_raised(error)}") from error


def _class(module: ModuleType, name: str) -> type:
    if name:
        found = getattr(module, name, None)
        if not inspect.isclass(found):
            raise LoadFailure(Reason.LOAD_FAILED, f"module {module.__name__!r} has no class {name!r}")
        return found
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and hasattr(value, "predict")
    ]
    if len(own) == 1:
        return own[0]
    raise LoadFailure(
        Reason.LOAD_FAILED,
        f"module {module.__name__!r} has {len(own)} classes with predict: name one with entrypoint pkg.mod:Class",
    )


def _made(found: type, directory: Path) -> Any:
    try:
        instance = found()
        if hasattr(instance, "load"):
            instance.load(str(directory))
    except BaseException as error:
        raise LoadFailure(Reason.LOAD_FAILED, f"{found.__name__} could not be loaded: {_raised(error)}") from error
    if not callable(getattr(instance, "predict", None)):
        raise LoadFailure(Reason.LOAD_FAILED, f"{found.__name__} has no method predict(inputs)")
    return instance


def _raised(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _specs(instance: Any, which: str) -> tuple[TensorSpec, ...]:
    """The class's optional declaration: [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]."""
    try:
        specs = tuple(
            TensorSpec(str(item["name"]), str(item["datatype"]), tuple(int(size) for size in item["shape"]))
            for item in getattr(instance, which, None) or ()
        )
    except (TypeError, KeyError, ValueError) as error:
        raise LoadFailure(
            Reason.LOAD_FAILED, f"{which} must be a list of objects with name, datatype and shape: {_raised(error)}"
        ) from error
    for spec in specs:
        if spec.datatype not in DATATYPES:
            raise LoadFailure(
                Reason.LOAD_FAILED, f"{which}: {spec.name!r} has datatype {spec.datatype!r}, not one of {[*DATATYPES]}"
            )
    return specs


def _array(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if datatype_of(array) is None:
        raise TypeError(f"output {name!r} has type {array.dtype}, which the protocol has no name for")
    return array
