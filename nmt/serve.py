"""The command `nmt-serve`."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nmt import documented
from nmt.decoding.options import DecodingOptions
from nmt.translation import models
from nmt.translation.models import Models
from tfkfac.command_line import Parser, add_option, add_options, exit_code
from tfkfac.errors import InputError
from tfkfac.options import COUNT, FLAG, NOT_NEGATIVE, Kind, from_flags, option

DESCRIPTION = """\
Translate over HTTP. A page to try it is at the address that it prints when it is ready; programs
send JSON:

  POST /translate   {"text": ["A line.", "Another one."]}; perhaps "beam", "n_best" (numbers) and
                    "alignments" (true); text may also be a single line
  GET /health       whether it is up, and what it allows

The answer to POST /translate is {"results": [...]}, for each line an object with "source", "cut"
(subwords left off) and "translations": a list, best first, empty for a blank line, of "text",
"score", "log_probability" and, if asked for, "alignment". An error is {"error": "..."} with status
400 (wrong), 404, 405, 413 (too large) or 503 (busy).

Requests that come within moments of each other are translated together. There is no encryption and
no access control: to serve others than this machine, put it behind a web server that has them."""
EXAMPLES = """\
examples:
  nmt-serve --model model
  curl localhost:8000/translate -d '{"text": "Guten Tag."}'"""
# A search is served: samples of a request would depend on those beside it.
_LEFT_OUT = ("sample", "temperature", "top_k", "top_p", "seed", "attention")
_HOST = Kind("a name or an address", str, lambda value: value != "", metavar="HOST")
_PORT = Kind("a port from 0 to 65535", lambda value: int(str(value)), lambda n: 0 <= n < 65536)
_GRACE = 20  # seconds for requests under way when it is told to end


@dataclass(frozen=True)
class Options:
    """Where it listens, and what it allows."""

    host: str = option(_HOST, "127.0.0.1", "address to listen on; 0.0.0.0: all of the machine's")
    port: int = option(_PORT, 8000, "port to listen on; 0: any that is free")
    max_bytes: int = option(COUNT, 1 << 20, "of a request")
    max_lines: int = option(COUNT, 100, "of a request")
    max_characters: int = option(COUNT, 5000, "of a line")
    max_beam: int = option(COUNT, 10, "that a request may ask for")
    max_waiting: int = option(COUNT, 10_000, "lines that may wait, before requests are refused")
    batch_timeout: float = option(
        NOT_NEGATIVE, 5.0, "milliseconds to wait for more requests to translate together"
    )
    log: bool = option(FLAG, False, "a line on standard error for each request to translate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: those of the command line; default: the process's.

    Returns:
        The exit code: 0 (told to end), 2 (wrong input) or 130 (interrupted).
    """
    return exit_code(lambda: _run(arguments))


def parser() -> Parser:
    """The command's options."""
    result = Parser(
        prog="nmt-serve",
        usage="nmt-serve --model DIR [DIR ...] [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        argument_default=argparse.SUPPRESS,
    )
    models.add_options(result)
    group = result.add_argument_group("server")
    add_options(group, Options)
    group = result.add_argument_group("search, of requests that do not say otherwise")
    for known in documented.options_of(DecodingOptions, leave_out=_LEFT_OUT).values():
        add_option(group, known)
    return result


def _run(arguments: Sequence[str] | None) -> None:
    flags = vars(parser().parse(arguments))
    options = from_flags(Options, flags)
    decoding = documented.from_flags(DecodingOptions, flags)
    if decoding.beam > options.max_beam:
        raise InputError(f"--beam: {decoding.beam} is more than --max-beam {options.max_beam}")
    chosen = Models.of(flags)
    # Before the models are loaded: a port that is taken is known at once.
    with listening(options.host, options.port) as connection:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        serve(options, decoding, chosen, connection)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Raises:
        InputError: naming the option, if that cannot be.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InputError(f"--host {host}: no such address ({error.strerror})") from error
    result = socket.socket(family, kind, protocol)
    try:
        result.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        result.bind(address)
        # At once, or another process could still take it; those who come early wait.
        result.listen()
    except OSError as error:
        result.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"--port {port}: cannot be listened on at {host} ({reason}); choose another, or 0 for "
            "any that is free"
        ) from error
    return result


def serve(
    options: Options,
    decoding: DecodingOptions,
    chosen: Models,
    connection: socket.socket,
    started: Callable[[Any], None] | None = None,
) -> None:
    """Serves until it is told to end.

    Args:
        options: of the server.
        decoding: options of requests that name none.
        chosen: the models.
        connection: from `listening`.
        started: called with the `uvicorn.Server` before it serves.

    Raises:
        InputError: if a file of weights is damaged.
    """
    import uvicorn

    from nmt.serving.application import application
    from nmt.serving.batching import Batcher
    from nmt.serving.service import Limits, Service

    class Server(uvicorn.Server):
        """Says where it is when it is ready."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            host, port = connection.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"ready: http://{shown}:{port}/", file=sys.stderr, flush=True)

    service = Service(chosen, decoding)
    service.warm_up()
    limits = Limits(options.max_bytes, options.max_lines, options.max_characters, options.max_beam)
    most = chosen.options.batch_size
    batcher = Batcher(service.translate, most, options.batch_timeout / 1000, options.max_waiting)
    model = " + ".join(path.absolute().name for path in chosen.directories)
    served = application(
        batcher, decoding, limits, chosen.source, chosen.target, model, options.log
    )
    server = Server(
        uvicorn.Config(
            served,
            log_level="error",
            access_log=False,
            lifespan="on",
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
    )
    if started is not None:
        started(server)
    server.run(sockets=[connection])


if __name__ == "__main__":
    sys.exit(main())
