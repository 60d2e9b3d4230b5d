"""AsyncSSH's SFTP server: PORT ROOT HOST_KEY AUTHORIZED_KEYS [shell]."""

import asyncio
import sys

import asyncssh

port, root, host_key, authorized = sys.argv[1:5]
with_shell = sys.argv[5:] == ["shell"]


async def run(process):
    """Commands by the machine's shell, as the library's examples have it."""
    child = await asyncio.create_subprocess_shell(
        process.command or "exec sh",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await process.redirect(child.stdin, child.stdout, child.stderr)
    process.exit(await child.wait())
    await process.wait_closed()


async def main():
    await asyncssh.listen(
        "127.0.0.1",
        int(port),
        server_host_keys=[host_key],
        authorized_client_keys=authorized,
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=None if with_shell else root),
        process_factory=run if with_shell else None,
        encoding=None,
    )
    await asyncio.Event().wait()


asyncio.run(main())
