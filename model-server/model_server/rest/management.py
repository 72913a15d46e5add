"""The management surface as a FastAPI application: health, metadata, and every error as problem+json.

Predictions never come here.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import Request

from model_server import __version__
from model_server.errors import Code, Problem
from model_server.lifecycle import Lifecycle
from model_server.rest import health, openapi, problems, v2


def build(lifecycle: Lifecycle) -> FastAPI:
    """The application; it reads `lifecycle` and changes nothing."""
    app = FastAPI(openapi_url=None)  # see openapi.py
    _health(app, lifecycle)
    _models(app, lifecycle)
    _errors(app)
    return app


def _health(app: FastAPI, lifecycle: Lifecycle) -> None:
    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """The process answers; a model that is still loading is alive."""
        health.require_live(lifecycle)
        return {"live": True}

    @app.get("/")
    async def alive() -> dict[str, str]:
        """The same for KServe's clients, which ask so by V1."""
        health.require_live(lifecycle)
        return {"status": "alive"}

    @app.get("/v2/health/ready")
    async def ready() -> dict[str, bool]:
        """The model is loaded and warm, and no stop was asked for."""
        health.require_ready(lifecycle)
        return {"ready": True}

    @app.get("/openapi.json")
    async def described() -> dict[str, Any]:
        """Everything there is to ask, predictions included."""
        return openapi.document(lifecycle)

    @app.get("/v2")
    async def server() -> dict[str, Any]:
        """Name, version and protocol extensions of this server."""
        return {"name": "inflight-model-server", "version": __version__, "extensions": list(v2.EXTENSIONS)}


def _models(app: FastAPI, lifecycle: Lifecycle) -> None:
    @app.get("/v2/models/{name}/versions/{version}")
    @app.get("/v2/models/{name}")
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        """Inputs, outputs, platform and digest of the loaded model."""
        return v2.metadata_json(name, lifecycle.get(name, version))

    @app.get("/v2/models/{name}/versions/{version}/ready")
    @app.get("/v2/models/{name}/ready")
    async def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        """Whether this model takes predictions."""
        lifecycle.known(name, version)
        health.require_ready(lifecycle)
        return {"name": name, "ready": True}

    @app.get("/v1/models")
    async def models() -> dict[str, list[str]]:
        """The one model that this server serves."""
        return {"models": [lifecycle.name]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        """Whether this model is ready, in words of protocol V1."""
        lifecycle.known(name)
        return {"name": name, "ready": lifecycle.ready}


_HTTP_CODES = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED}
_HTTP_DETAILS = {404: "there is nothing at this path", 405: "this path does not take this method"}


def _errors(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return _response(request, error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = _HTTP_CODES.get(error.status_code, Code.BAD_REQUEST)
        return _response(request, Problem(code, _HTTP_DETAILS.get(error.status_code, "bad request")), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, _error: RequestValidationError) -> Response:
        return _response(request, Problem(Code.BAD_REQUEST, "the request's path or query is not valid"))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, _error: Exception) -> Response:
        return _response(request, Problem(Code.INTERNAL, "the server failed on this request"))


def _response(request: Request, problem: Problem, headers: Any = None) -> Response:
    answer = problems.answer(problem, request.state.request_id)
    response = Response(answer.body, answer.status)
    for name, value in answer.headers:
        response.headers[name.decode()] = value.decode()
    response.headers.update(headers or {})
    return response
