"""Runs a command in a terminal, does what a person would, and tells what was seen."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

act, command = sys.argv[1], sys.argv[2:]
master, slave = pty.openpty()


def resize(rows, columns):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


resize(37, 91)
before = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for descriptor in (0, 1, 2):
        os.dup2(slave, descriptor)
    os.close(master)
    os.execvp(command[0], command)

seen = b""


def read_until(word):
    global seen
    end = time.monotonic() + 60
    while word not in seen:
        if time.monotonic() > end:
            sys.exit(f"waited in vain for {word!r}, saw {seen!r}")
        if select.select([master], [], [], 1)[0]:
            try:
                seen += os.read(master, 4096)
            except OSError:
                break


if act == "talk":
    read_until(b"all terminals")
    if not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG):
        print("raw while it runs")
    resize(40, 100)
    os.kill(pid, signal.SIGWINCH)
    time.sleep(0.5)
    os.write(master, b"hello\r")
elif act == "interrupt":
    read_until(b"ready")
    os.write(master, b"\x03")
elif act == "terminate":
    read_until(b"ready")
    os.kill(pid, signal.SIGTERM)

status = None
end = time.monotonic() + 60
while status is None:
    if select.select([master], [], [], 0.1)[0]:
        seen += os.read(master, 4096)
    done, raw = os.waitpid(pid, os.WNOHANG)
    if done:
        status = os.waitstatus_to_exitcode(raw)
    elif time.monotonic() > end:
        os.kill(pid, signal.SIGKILL)
        sys.exit(f"haul does not end, saw {seen!r}")
while select.select([master], [], [], 0.2)[0]:
    seen += os.read(master, 4096)
if termios.tcgetattr(slave) == before:
    print("put back")
print(f"status {status}")
print(seen.decode(errors="replace"))
