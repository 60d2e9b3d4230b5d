"""Paramiko's SFTP server over a directory: PORT ROOT HOST_KEY AUTHORIZED_KEYS.

The file operations are those of the stub that the library's documentation points to, and
that many small servers copied: a rename is os.rename, flags go to os.open as they come.
"""

import os
import socket
import sys
import threading

import paramiko

port, root, host_key, authorized = sys.argv[1:5]
with open(authorized, encoding="ascii") as lines:
    ALLOWED = {line.split()[1] for line in lines if line.strip()}


class Login(paramiko.ServerInterface):
    def get_allowed_auths(self, username):
        return "publickey"

    def check_auth_publickey(self, username, key):
        return paramiko.AUTH_SUCCESSFUL if key.get_base64() in ALLOWED else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED


def answer(method):
    def call(*arguments):
        try:
            result = method(*arguments)
            return paramiko.SFTP_OK if result is None else result
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    return call


class OpenFile(paramiko.SFTPHandle):
    @answer
    def stat(self):
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))

    @answer
    def chattr(self, attributes):
        paramiko.SFTPServer.set_file_attr(self.filename, attributes)


class Directory(paramiko.SFTPServerInterface):
    def local(self, path):
        return root + self.canonicalize(path)

    @answer
    def list_folder(self, path):
        entries = []
        for name in os.listdir(self.local(path)):
            entry = paramiko.SFTPAttributes.from_stat(os.lstat(os.path.join(self.local(path), name)))
            entry.filename = name
            entries.append(entry)
        return entries

    @answer
    def stat(self, path):
        return paramiko.SFTPAttributes.from_stat(os.stat(self.local(path)))

    @answer
    def lstat(self, path):
        return paramiko.SFTPAttributes.from_stat(os.lstat(self.local(path)))

    @answer
    def open(self, path, flags, attributes):
        path = self.local(path)
        mode = getattr(attributes, "st_mode", None)
        descriptor = os.open(path, flags, 0o666 if mode is None else mode)
        if flags & os.O_WRONLY:
            stream = os.fdopen(descriptor, "wb")
        elif flags & os.O_RDWR:
            stream = os.fdopen(descriptor, "r+b")
        else:
            stream = os.fdopen(descriptor, "rb")
        opened = OpenFile(flags)
        opened.filename = path
        opened.readfile = opened.writefile = stream
        return opened

    @answer
    def remove(self, path):
        os.remove(self.local(path))

    @answer
    def rename(self, old, new):
        os.rename(self.local(old), self.local(new))

    @answer
    def mkdir(self, path, attributes):
        os.mkdir(self.local(path))
        paramiko.SFTPServer.set_file_attr(self.local(path), attributes)

    @answer
    def rmdir(self, path):
        os.rmdir(self.local(path))

    @answer
    def chattr(self, path, attributes):
        paramiko.SFTPServer.set_file_attr(self.local(path), attributes)

    @answer
    def readlink(self, path):
        return os.readlink(self.local(path))


def serve(connection):
    transport = paramiko.Transport(connection)
    transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(host_key))
    transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Directory)
    transport.start_server(server=Login(), event=threading.Event())


listener = socket.create_server(("127.0.0.1", int(port)), backlog=100)
transports = []
while True:
    serve(listener.accept()[0])
