"""The other end of a `function` tool: loads one file once, then runs its function in a fresh fork for every call.

Started as a program of its own, with an empty environment, and imports nothing of Freehold: what it holds is the operator's
code and its libraries. The parent speaks over the Unix socket on standard input:

* First line from here: `{"functions": {...}}` of what was loaded, or `{"error": ...}`.
* Each byte from the parent brings a socket of its own for one run: a line with the request goes in, a line with the
  result comes out, then one with how the run ended. Hanging up on it kills the run with all that it started.
* The parent's end of file ends everything.

A fork is cheap (a few ms) where imports are not (seconds), leaves nothing behind for the next run, and can be killed.
"""

import asyncio
import contextlib
import importlib.util
import inspect
import json
import os
import resource
import select
import signal
import socket
import sys
import traceback
import typing
from types import ModuleType
from typing import Any, Final

import msgspec

REQUEST_BYTES_MAX: Final = 4_000_000


def main() -> None:
    path, name, bound = sys.argv[1], sys.argv[2], sys.argv[3].split(",") if sys.argv[3] else []
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what the operator's code prints is for the log
    try:
        function = load(path, name)
        arguments = arguments_of(function, frozenset(bound))
        told = {"description": inspect.getdoc(function) or "", "schema": msgspec.json.schema(arguments)}
    except BaseException as error:  # noqa: BLE001 - loading runs the operator's file: whatever it raises is told
        tell(control, {"error": explained(error), "trace": traceback.format_exc()})
        return
    tell(control, told)
    Runs(control, function, arguments).serve()


def load(path: str, name: str) -> Any:
    spec = importlib.util.spec_from_file_location("operator_function", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{os.path.basename(path)} is no Python file")
    sys.path.append(os.path.dirname(path))
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    functions = {key: one for key, one in vars(module).items() if inspect.isroutine(one)}
    if name not in functions:
        known = [
            key for key, one in functions.items() if not key.startswith("_") and one.__module__ == spec.name
        ]
        raise LookupError(f"{os.path.basename(path)} has no function {name!r}; it has: {', '.join(known)}")
    return functions[name]


def arguments_of(function: Any, bound: frozenset[str]) -> type[msgspec.Struct]:
    """The function's parameters as a Struct: those that are bound are not the model's to give."""
    hints = typing.get_type_hints(function, include_extras=True)
    required: list[Any] = []
    optional: list[Any] = []
    parameters = inspect.signature(function).parameters
    if unknown := bound - parameters.keys():
        raise LookupError(f"`bind` names what the function doesn't take: {', '.join(sorted(unknown))}")
    for one in parameters.values():
        if one.kind in {one.VAR_POSITIONAL, one.VAR_KEYWORD, one.POSITIONAL_ONLY}:
            raise TypeError(f"the parameter {one.name!r} can't be given by name")
        if one.name in bound:
            continue
        if one.name not in hints:
            raise TypeError(
                f"the parameter {one.name!r} has no type; write one, the model's schema is made from it"
            )
        if one.default is one.empty:
            required.append((one.name, hints[one.name]))
        else:
            optional.append((one.name, hints[one.name], one.default))
    return msgspec.defstruct("Arguments", [*required, *optional], forbid_unknown_fields=True, kw_only=True)


class Runs:
    """Forks, waits, kills. One thread and no signal handler: polls the runs' sockets, and pipes that close with their child."""

    def __init__(self, control: socket.socket, function: Any, arguments: type[msgspec.Struct]) -> None:
        self.control = control
        self.function = function
        self.arguments = arguments
        self.poll = select.poll()
        self.runs: dict[int, tuple[socket.socket, int, int]] = {}
        """By the descriptor of the run's socket: the socket, the child's pid, and the pipe that closes with it."""
        self.pipes: dict[int, int] = {}
        """By the pipe's descriptor: that of the run's socket."""

    def serve(self) -> None:
        """One event a poll: handling one may close a descriptor whose number the next one has again."""
        self.poll.register(self.control, select.POLLIN)
        while True:
            descriptor, _ = self.poll.poll()[0]
            if descriptor in self.pipes:
                self.finish(self.pipes[descriptor])
            elif descriptor in self.runs:
                self.finish(descriptor)
            elif not self.accept():
                break
        for descriptor in list(self.runs):
            self.finish(descriptor)

    def accept(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self.control, 1, 1)
        if not data:
            return False
        run = socket.socket(fileno=descriptors[0])
        pipe, end = os.pipe()
        pid = os.fork()
        if pid == 0:
            self.leave()
            os.close(pipe)
            perform(run, self.function, self.arguments)
        os.close(end)
        self.runs[run.fileno()] = (run, pid, pipe)
        self.pipes[pipe] = run.fileno()
        self.poll.register(run, 0)
        self.poll.register(pipe, select.POLLIN)
        return True

    def leave(self) -> None:
        """In the fork: a group of its own, and no hold on what belongs to the others."""
        os.setpgid(0, 0)
        self.control.close()
        for run, _, pipe in self.runs.values():
            run.close()
            os.close(pipe)

    def finish(self, descriptor: int) -> None:
        """The child ended, or was hung up on: then it ends now. It is still ours to wait for, so its pid is its own."""
        run, pid, pipe = self.runs.pop(descriptor)
        kill_group(pid)
        _, status = os.waitpid(pid, 0)
        self.poll.unregister(run)
        self.poll.unregister(pipe)
        del self.pipes[pipe]
        os.close(pipe)
        with contextlib.suppress(OSError):  # where it was hung up on, nobody listens
            tell(run, {"exit": os.waitstatus_to_exitcode(status)})
        run.close()


def kill_group(pid: int) -> None:
    """The child and what it started; by its own pid too, as it may not have its group yet."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def perform(run: socket.socket, function: Any, arguments: type[msgspec.Struct]) -> typing.NoReturn:
    """In the fork: reads the request, runs, tells the result, and is gone without any clean-up of the parent's things."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with run.makefile("rb") as reading:
            request = json.loads(reading.readline(REQUEST_BYTES_MAX))
        tell(run, result_of(request, function, arguments))
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def result_of(request: dict[str, Any], function: Any, arguments: type[msgspec.Struct]) -> dict[str, Any]:
    try:
        values = msgspec.convert(request["arguments"], arguments)
    except msgspec.ValidationError as error:
        return {"refused": str(error)}
    given = {name: getattr(values, name) for name in arguments.__struct_fields__} | request["bound"]
    limit(request["memory_mb"], request["timeout_s"])
    try:
        result = function(**given)
        if inspect.isawaitable(result):
            result = asyncio.run(awaited(result))
        return {"result": msgspec.to_builtins(result, enc_hook=plain)}
    except MemoryError:
        return {"failed": f"it needed more memory than memory_mb ({request['memory_mb']}) allows"}
    except BaseException as error:  # noqa: BLE001 - the operator's code: whatever it raises is its answer
        return {"failed": explained(error), "trace": traceback.format_exc()}


async def awaited(result: Any) -> Any:
    return await result


def limit(memory_mb: int, timeout_s: float) -> None:
    """Memory beyond what the imports took, and processor time; both hold for each process that the run starts."""
    seconds = int(timeout_s) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:
        return  # macOS: has no such file, and doesn't hold RLIMIT_AS
    size = used + memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def plain(value: Any) -> Any:
    """Numbers and arrays of numpy and pandas, by what they offer rather than by name."""
    for method in ("tolist", "isoformat", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"the result holds a {type(value).__name__}, which is no JSON")


def explained(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def tell(to: socket.socket, message: dict[str, Any]) -> None:
    to.sendall(msgspec.json.encode(message) + b"\n")


if __name__ == "__main__":
    main()
