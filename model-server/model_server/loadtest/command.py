"""`model-server loadtest`: checks what it needs, runs the stages, writes what was asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import uvloop

from model_server.loadtest import options as command_line
from model_server.loadtest.plan import LoadTestError
from model_server.loadtest.report import Result

INTERRUPTED: Final = 130
_EXTRA: Final = "pip install 'inflight-model-server[loadtest]'"


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 measured, 1 could not measure, 130 ended by Ctrl-C, with what there was until then."""
    options = command_line.parse(arguments)
    try:
        earlier = [_earlier(Path(file)) for file in options.compare]
        if options.output:
            _need("matplotlib", "to draw")
        result = None
        if options.url:
            _need("aiohttp", "to send requests")
            from model_server.loadtest.stages import measure  # noqa: PLC0415 - aiohttp may be missing

            result = uvloop.run(measure(options))
        _write(result, earlier, options.json, options.output)
    except LoadTestError as error:
        print(f"model-server loadtest: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return INTERRUPTED if result and result.interrupted else 0


def _need(module: str, purpose: str) -> None:
    if find_spec(module) is None:
        raise LoadTestError(f"{module} is needed {purpose}; install it with: {_EXTRA}")


def _earlier(file: Path) -> Result:
    try:
        return Result.of_json(file.read_text())
    except (OSError, UnicodeDecodeError, LoadTestError) as error:
        raise LoadTestError(f"--compare: {file}: {error}") from None


def _write(result: Result | None, earlier: list[Result], results_file: Path | None, chart_file: Path | None) -> None:
    drawn = [*earlier, *([result] if result and result.stages else [])]
    try:
        if results_file and result:
            results_file.write_text(result.as_json())
            print(f"figures: {results_file}")
        if chart_file and drawn:
            from model_server.loadtest import chart  # noqa: PLC0415 - matplotlib may be missing

            chart.draw(drawn, chart_file)
            print(f"chart: {chart_file}")
    except OSError as error:
        raise LoadTestError(f"can't write {error.filename}: {error.strerror}") from None
