# The way to a host: from what Ansible's ssh connection plugin was told to the arguments of
# haul. Knows no Ansible, so that it can be tested alone. What has no counterpart is refused.

from __future__ import annotations

import os
import shlex

# ssh's flags that take a value, and the keyword of ssh_config that each stands for.
KEYWORDS = {
    'o': None,
    'p': 'Port',
    'P': 'Port',
    'l': 'User',
    'c': 'Ciphers',
    'm': 'MACs',
}
# haul has these under the same letter.
FLAGS_WITH_VALUE = 'JFi'
FLAGS = 'C46'
# These say nothing about an upload: verbosity of ssh, terminals, agent and X11 forwarding,
# and a method of authentication that haul does not have.
MEANINGLESS_FLAGS = 'AaqvTxk'
MEANINGLESS_KEYWORDS = frozenset((
    'controlmaster', 'controlpath', 'controlpersist',
    'forwardagent', 'forwardx11', 'forwardx11trusted', 'loglevel', 'requesttty',
))
# Every value of these counts; of all others the first one, as for ssh.
CUMULATIVE = frozenset(('identityfile', 'certificatefile'))

# What sudo is called with by default; haul's own call means the same.
SUDO_FLAGS = frozenset(('-H', '-S', '-n'))

PERCENT_SAFE = frozenset(b'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/')


class Refused(Exception):
    """Something that cannot be done with haul, in one line."""


class Way:
    """Collects arguments; of what is said twice the first counts."""

    def __init__(self):
        self.arguments = []
        self._seen = set()

    def option(self, keyword, value):
        name = keyword.lower()
        if name in MEANINGLESS_KEYWORDS:
            return
        if name not in CUMULATIVE:
            if name in self._seen:
                return
            self._seen.add(name)
        self.arguments += ['-o', f'{keyword}={value}']

    def flag(self, letter, value=None):
        if letter != 'i':
            if letter in self._seen:
                return
            self._seen.add(letter)
        self.arguments.append('-' + letter)
        if value is not None:
            self.arguments.append(value)

    def words(self, text, source):
        """The words of a variable such as ansible_ssh_common_args."""
        try:
            words = shlex.split(text)
        except ValueError as problem:
            raise Refused(f'{source}: {problem}') from None
        words = iter(words)
        for word in words:
            if not word.startswith('-') or word in ('-', '--'):
                raise Refused(f"{source}: '{word}' is no option")
            self._letters(word[1:], words, source)

    def _letters(self, letters, rest, source):
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in KEYWORDS or letter in FLAGS_WITH_VALUE:
                value = letters or next(rest, None)
                if value is None:
                    raise Refused(f'{source}: -{letter} needs a value')
                self._valued(letter, value, source)
                return
            if letter in FLAGS:
                self.flag(letter)
            elif letter not in MEANINGLESS_FLAGS:
                raise Refused(f'{source}: haul_put does not support -{letter} of ssh')

    def _valued(self, letter, value, source):
        if letter in FLAGS_WITH_VALUE:
            self.flag(letter, value)
        elif KEYWORDS[letter] is not None:
            self.option(KEYWORDS[letter], value)
        else:
            keyword, value = _split(value)
            if not keyword or not value:
                raise Refused(f'{source}: -o takes KEY=VALUE')
            self.option(keyword, value)


def _split(option):
    """KEY=VALUE, KEY VALUE and KEY = VALUE, as ssh_config has them."""
    option = option.strip()
    end = next((i for i, c in enumerate(option) if c == '=' or c.isspace()), len(option))
    rest = option[end:].lstrip()
    if rest.startswith('='):
        rest = rest[1:].lstrip()
    return option[:end], rest


def arguments(get, is_default):
    """
    The arguments of haul for a connection. get(name) is an option of Ansible's ssh
    connection plugin; is_default(name) says that nobody has set it.
    """
    for name, instead in (
        ('private_key', 'name a file by ansible_ssh_private_key_file'),
        ('pkcs11_provider', 'use an agent that holds the key'),
    ):
        if get(name):
            raise Refused(f"haul_put does not support the ssh connection's option '{name}'; {instead}")
    program = get('ssh_executable')
    if program and os.path.basename(program) != 'ssh':
        raise Refused(f"haul_put speaks SSH itself and cannot use ansible_ssh_executable '{program}'")

    way = Way()
    if password(get) is None:
        # It would turn a password off too. Nobody is asked in any case: see run.py.
        way.option('BatchMode', 'yes')
    # Ansible's own default asks for compression, which a big file is rarely better for.
    if not is_default('ssh_args'):
        way.words(get('ssh_args') or '', 'ansible_ssh_args')
    if get('host_key_checking') is False:
        # haul has no way to leave the check out: a new key is taken and written down.
        way.option('StrictHostKeyChecking', 'accept-new')
    if get('port') is not None:
        way.option('Port', str(get('port')))
    if get('private_key_file'):
        way.flag('i', os.path.expanduser(get('private_key_file')))
    if get('remote_user'):
        way.option('User', get('remote_user'))
    if get('timeout'):
        way.option('ConnectTimeout', str(get('timeout')))
    for name in ('ssh_common_args', 'ssh_extra_args', 'sftp_extra_args'):
        way.words(get(name) or '', 'ansible_' + name)
    return way.arguments


def password(get):
    """The password to log in with, or None."""
    given = get('password')
    if not given or get('password_mechanism') == 'disable':
        return None
    if '\n' in given:
        raise Refused('ansible_password holds a line break')
    return given


def sudo(name, get):
    """The argument that makes haul work as another user. name is the become method's."""
    if name != 'sudo':
        raise Refused(f"become_method '{name}' is not supported by haul_put, only sudo is")
    if get('become_pass'):
        raise Refused(
            'haul_put runs sudo without a password and was given one; allow it without (NOPASSWD) in sudoers,'
            ' and leave become_password away'
        )
    exe = get('become_exe')
    if exe not in (None, '', 'sudo'):
        raise Refused(f"become_exe '{exe}' is not supported by haul_put, only sudo is")
    try:
        flags = shlex.split(get('become_flags') or '')
    except ValueError as problem:
        raise Refused(f'become_flags: {problem}') from None
    for flag in flags:
        if flag not in SUDO_FLAGS:
            raise Refused(f"become_flags '{flag}' is not supported by haul_put, which calls sudo with -n -H")
    if get('sudo_chdir'):
        raise Refused('ansible_sudo_chdir is not supported by haul_put')
    return '--sudo=' + (get('become_user') or 'root')


def destination(host, dest):
    """host and dest as haul's DEST: never a pattern, never a name of an inventory of haul's."""
    if dest.startswith('~') and dest != '~' and not dest.startswith('~/'):
        raise Refused(f"dest '{dest}': of ~ only the home of the user who writes is supported; write the whole path")
    if dest == '~' or dest.startswith('~/'):
        path = '/~/' + dest[2:]
    elif dest.startswith('/~/'):
        path = '/.' + dest
    elif dest.startswith('/'):
        path = dest
    else:
        path = '/~/' + dest
    return 'sftp://[' + _percent(host) + ']' + _percent(path)


def _percent(text):
    encoded = text.encode('utf-8', 'surrogateescape')
    return ''.join(chr(byte) if byte in PERCENT_SAFE else f'%{byte:02X}' for byte in encoded)
