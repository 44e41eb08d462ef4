"""Commands that change something: `rewarm`, `restart`, `stop`."""

from __future__ import annotations

import os
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import anyio
import typer

from ...ipc.control import ControlClient, connect
from ...ipc.control_messages import Readiness
from ...ipc.messages import WarmPrefix
from .ask import print_json, verdict
from .connection import JsonOption, SocketOption, ask, control_socket
from .outcome import FAILED, NEGATIVE, Failure
from .words import duration, headline, prefixes

PROMPT_LIMIT = 1 << 20
"""Bytes of one prompt file, the same as of `WARMUP_SYSTEM_FILE`."""

EXIT_POLL = 0.02


def rewarm(
    prompt: Annotated[
        list[Path] | None,
        typer.Option("--prompt", metavar="FILE", help="Warm the system prompt in this UTF-8 file; may be repeated."),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.0, metavar="S", help="Longest wait, seconds.")] = 600.0,
    json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Warm again without a restart; the service stays ready meanwhile.

    Without --prompt: the configured system prompts.
    """
    prompts = _prompts(prompt or [])

    async def question(client: ControlClient) -> int:
        report = await client.rewarm(prompts, within=timeout)
        if json:
            print_json(report)
        else:
            reason = f" ({report.reason})" if report.reason else ""
            typer.echo(f"{report.outcome}{reason} in {duration(report.seconds)}: {prefixes(report.prefixes)}")
        return {"succeeded": 0, "failed": FAILED}.get(report.outcome, NEGATIVE)

    raise typer.Exit(ask(socket, question))


def _prompts(files: list[Path]) -> tuple[WarmPrefix, ...]:
    stems = [file.stem for file in files]
    names = [stem if stems.count(stem) == 1 else str(file) for stem, file in zip(stems, files, strict=True)]
    return tuple(WarmPrefix(name=name, system=read_prompt(file)) for name, file in zip(names, files, strict=True))


def read_prompt(file: Path) -> str:
    """The text of a prompt file.

    Raises:
        Failure: If it can't be used as one.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(PROMPT_LIMIT + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise Failure(f"cannot read the prompt {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Failure(f"the prompt {file} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    if len(raw) > PROMPT_LIMIT:
        raise Failure(f"the prompt {file} is longer than {PROMPT_LIMIT} bytes, which is the limit")
    if not text.strip():
        raise Failure(f"the prompt {file} is empty; there is nothing to warm")
    return text


def restart(
    cold: Annotated[bool, typer.Option("--cold", help="Don't warm the new worker.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is ready again, or at once.")] = True,
    timeout: Annotated[float, typer.Option("--timeout", min=0.0, metavar="S", help="Longest wait, seconds.")] = 300.0,
    json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Replace the worker. The old one serves meanwhile if memory allows two, else requests wait; none fails.

    Exit code 0 ready again, 1 not yet, or the new one did not become ready; 2 failed.
    """
    if not wait:
        ask(socket, lambda client: client.restart(cold=cold))
        typer.echo("restart begun; `stoker ready --wait` waits for it", err=json)
        return
    now, seconds = anyio.run(_restart, control_socket(socket), cold, timeout)
    if json:
        print_json(now)
    else:
        typer.echo(f"after {duration(seconds)}: {headline(now)}")
    raise typer.Exit(verdict(now))


async def _restart(path: Path, cold: bool, timeout: float) -> tuple[Readiness, float]:  # noqa: ASYNC109 - as `ready`
    """Ask for it, and follow what happens: the last snapshot, and seconds."""
    start = anyio.current_time()
    async with connect(path) as watching, connect(path) as asking, aclosing(watching.watch()) as changes:
        before = last = await anext(changes)
        await asking.restart(cold=cold)
        with anyio.move_on_after(timeout):
            begun = False
            async for last in changes:
                begun = begun or last.successor is not None
                if last.phase == "failed" or (last.ready and last.generation > before.generation):
                    return last, anyio.current_time() - start
                if begun and last.replacement_failed is not None:
                    raise Failure(
                        f"the new worker did not become ready, the old one serves on: {last.replacement_failed}",
                        NEGATIVE,
                    )
    raise Failure(f"not ready again after {timeout:g} s: {headline(last)}; it goes on", NEGATIVE)


def stop(
    timeout: Annotated[float, typer.Option("--timeout", min=0.0, metavar="S", help="Longest wait, seconds.")] = 60.0,
    socket: SocketOption = None,
) -> None:
    """Stop worker and daemon; returns when both are gone.

    Running answers get the time to end.
    """
    anyio.run(_stop, control_socket(socket), timeout)
    typer.echo("stopped")


async def _stop(path: Path, timeout: float) -> None:  # noqa: ASYNC109 - its message says more than a TimeoutError
    async with connect(path) as client:
        pid = client.daemon.pid
        await client.stop()
        with anyio.move_on_after(timeout):
            await client.closed()
            # Its lock is free only when the process has ended, and then another daemon may start.
            while pid is not None and _runs(pid):  # noqa: ASYNC110 - another process sets no event
                await anyio.sleep(EXIT_POLL)
            return
    raise Failure(f"the daemon (pid {pid}) is still stopping after {timeout:g} s; look at `stoker logs`", NEGATIVE)


def _runs(pid: int) -> bool:
    import psutil  # noqa: PLC0415 - only this command needs it

    try:
        return pid != os.getpid() and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
