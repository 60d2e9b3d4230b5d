# Runs the haul binary, hears what it tells, and sees to it that it ends with its task.

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile

from ansible_collections.haul.haul.plugins.plugin_utils.way import Refused

# How long haul may take to give its lock back when the task is cut short.
END_SECONDS = 15
# haul's errors are one line.
MAX_ERROR_BYTES = 16 * 1024
READ_BYTES = 1024 * 1024
# prctl(2): the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1
UNITS = ('B', 'KiB', 'MiB', 'GiB', 'TiB')


def find(binary):
    """The whole path of the haul binary on this machine."""
    found = shutil.which(binary)
    if found is None:
        where = 'there is none' if os.path.dirname(binary) else 'it is not in PATH'
        raise Refused(
            f"the program haul was not found on the controller ('{binary}': {where}); install it there, or say"
            ' where it is by haul_binary'
        )
    return os.path.abspath(found)


def sha256(path):
    """The SHA-256 of a local file."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def run(command, password, hear):
    """
    Runs haul with --json. Calls hear(event) for each event and gives the exit status, the
    result (or None) and the last line of standard error. The password goes through a pipe.
    """
    # What haul is to do is in its arguments and nowhere else.
    # Nobody may be asked: neither by a program for that, nor at a terminal, which a session
    # of its own does not have.
    environment = {
        name: value for name, value in os.environ.items()
        if not name.startswith('HAUL_') and name not in ('SSH_ASKPASS', 'SSH_ASKPASS_REQUIRE')
    }
    descriptors = ()
    if password is not None:
        descriptors = (_pipe_with(password),)
        command = [*command[:2], f'--password-fd={descriptors[0]}', *command[2:]]
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment,
                pass_fds=descriptors, start_new_session=True, preexec_fn=_end_with_parent,
            )
        except OSError as problem:
            raise Refused(f"the program '{command[0]}' cannot be run: {problem.strerror}") from None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        result = None
        try:
            with process.stdout:
                for line in process.stdout:
                    event = _event(line)
                    if event.get('event') == 'result':
                        result = event
                    elif event:
                        hear(event)
            status = process.wait()
        finally:
            _end(process)
        errors.seek(0)
        lines = errors.read(MAX_ERROR_BYTES).decode('utf-8', 'replace').splitlines()
    return status, result, lines


def _pipe_with(password):
    """A descriptor to read the password from. It is far smaller than what a pipe holds."""
    reader, writer = os.pipe()
    try:
        os.write(writer, password.encode('utf-8', 'surrogateescape') + b'\n')
    finally:
        os.close(writer)
    return reader


_LIBC = ctypes.CDLL(None)


def _end_with_parent():
    """In the child: a worker that is killed must not leave an upload behind."""
    if hasattr(_LIBC, 'prctl'):
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(process):
    """Asks haul to stop, which gives the lock back; then makes it."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _event(line):
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def error_line(lines):
    """What haul said of a failure that has no result: its first line, without the name before it."""
    for line in lines:
        for name in ('haul: ', 'error: '):
            line = line.removeprefix(name)
        if line.strip():
            return line.strip()
    return 'haul said nothing'


def progress_line(event):
    """A phase or a progress event for people."""
    done, total, rate = event.get('done') or 0, event.get('total') or 0, event.get('rate')
    text = str(event.get('phase'))
    if total:
        text += f' {100 * done // total}% ({size(done)} of {size(total)}'
        text += f', {size(rate)}/s)' if rate else ')'
    return text


def size(number):
    number = float(number)
    for unit in UNITS:
        if number < 1024 or unit == UNITS[-1]:
            return f'{number:.0f} {unit}' if unit == 'B' else f'{number:.1f} {unit}'
        number /= 1024
