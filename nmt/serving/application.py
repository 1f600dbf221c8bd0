"""The server's addresses: the page, the state of health, and translation."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from nmt.decoding.options import DecodingOptions
from nmt.serving.batching import Batcher, Full
from nmt.serving.service import Limits, Request, TooLarge, answer
from nmt.subwords import Subwords
from tfkfac.errors import InputError

# The page loads nothing from elsewhere, and nothing that it is given can make it.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def application(
    batcher: Batcher,
    default: DecodingOptions,
    limits: Limits,
    source: Subwords,
    target: Subwords,
    model: str = "",
    log: bool = False,
) -> Starlette:
    """An ASGI application; it closes the batcher when it ends.

    Args:
        batcher: does the work of `Service.translate`.
        default: options of decoding of a request that names none.
        limits: of requests.
        source, target: the models' subwords.
        model: what the page and the state of health call the model.
        log: whether each request to translate writes a line on standard error.
    """
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

    async def show_page(request: HTTPRequest) -> Response:
        headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
        return HTMLResponse(page, headers=headers)

    async def health(request: HTTPRequest) -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "model": model,
                "version": metadata.version("tfkfac"),
                "waiting": batcher.waiting,
                "beam": default.beam,
                "n_best": default.n_best,
                "limits": {
                    "bytes": limits.size,
                    "lines": limits.lines,
                    "characters": limits.characters,
                    "beam": limits.beam,
                },
            }
        )

    async def translate(http: HTTPRequest) -> Response:
        start = time.perf_counter()
        try:
            request = Request.of(await _json(http, limits.size), default, limits)
            found: Any = []
            if request.lines:
                future = batcher.submit(request.options, request.lines)
                found = await asyncio.wrap_future(future)
            results = answer(request, found, source, target)
            response = JSONResponse({"results": results})
            lines = len(request.lines)
        except TooLarge as error:
            response, lines = _problem(413, str(error)), 0
        except InputError as error:
            response, lines = _problem(400, str(error)), 0
        except Full as error:
            response, lines = _problem(503, f"busy: {error}; try again later"), 0
        except ClientDisconnect:
            return Response(status_code=400)
        if log:
            milliseconds = 1000 * (time.perf_counter() - start)
            client = http.client.host if http.client else "-"
            print(
                f"{client} {response.status_code} lines={lines} ms={milliseconds:.0f}",
                file=sys.stderr,
                flush=True,
            )
        return response

    async def refuse(http: HTTPRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        known = "GET /, GET /health, POST /translate"
        messages = {
            404: f"{http.url.path}: no such address (there are {known})",
            405: f"{http.url.path}: not with {http.method} (there are {known})",
        }
        return _problem(
            error.status_code, messages.get(error.status_code, error.detail), error.headers
        )

    async def fail(http: HTTPRequest, error: Exception) -> Response:
        return _problem(500, "internal error; the server's standard error says more")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    return Starlette(
        routes=[
            Route("/", show_page),
            Route("/health", health),
            Route("/translate", translate, methods=["POST"]),
        ],
        exception_handlers={HTTPException: refuse, 500: fail},
        lifespan=lifespan,
    )


def _problem(status: int, message: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status, headers=headers)


async def _json(http: HTTPRequest, most: int) -> Any:
    """The content of a request, of which no more than `most` bytes are ever read."""
    body = bytearray()
    async for block in http.stream():
        body += block
        if len(body) > most:
            raise TooLarge(f"the request has more than {most:,} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request is no JSON ({error})") from error
