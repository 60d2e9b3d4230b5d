"""Twisted Conch's SFTP server for the account that runs it: PORT ROOT HOST_KEY AUTHORIZED_KEYS."""

import os
import sys

from twisted.conch import unix
from twisted.conch.checkers import InMemorySSHKeyDB, SSHPublicKeyChecker
from twisted.conch.ssh import factory, keys
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.python.filepath import FilePath

port, root, host_key, authorized = sys.argv[1:5]
user = __import__("pwd").getpwuid(os.getuid()).pw_name


class User(unix.UnixConchUser):
    def getHomeDir(self):
        return FilePath(self.pwdData.pw_dir)


class Realm:
    def requestAvatar(self, username, mind, *interfaces):
        name = username.decode() if isinstance(username, bytes) else username
        avatar = User(name)
        return interfaces[0], avatar, avatar.logout


with open(authorized, "rb") as lines:
    allowed = [keys.Key.fromString(line) for line in lines if line.strip()]
server = factory.SSHFactory()
key = keys.Key.fromFile(host_key)
server.privateKeys = {key.sshType(): key}
server.publicKeys = {key.sshType(): key.public()}
server.portal = Portal(Realm(), [SSHPublicKeyChecker(InMemorySSHKeyDB({user.encode(): allowed}))])
reactor.listenTCP(int(port), server, interface="127.0.0.1")
reactor.run()
