# The parameters of haul_put: which there are, which are refused, and which arguments of
# haul each stands for.

from __future__ import annotations

import os
import re
import stat

from ansible_collections.haul.haul.plugins.plugin_utils.way import Refused

SPEC = {
    'src': {'type': 'str', 'required': True},
    'dest': {'type': 'str', 'required': True},
    'mode': {'type': 'raw'},
    'owner': {'type': 'str'},
    'group': {'type': 'str'},
    'checksum': {'type': 'str'},
    'force': {'type': 'bool'},
    'if_exists': {'type': 'str', 'choices': ['replace', 'skip', 'fail']},
    'verify': {'type': 'str', 'choices': ['sha256', 'fast', 'size'], 'default': 'sha256'},
    'merge': {'type': 'str', 'choices': ['auto', 'script', 'sftp'], 'default': 'auto'},
    'chunk_size': {'type': 'str'},
    'connections': {'type': 'str'},
    'bwlimit': {'type': 'str'},
    'compress': {'type': 'bool', 'default': False},
    'quick': {'type': 'bool', 'default': False},
    'rehash': {'type': 'bool', 'default': False},
    'user_id': {'type': 'str'},
    'wait': {'type': 'raw'},
    'break_lock': {'type': 'bool', 'default': False},
    'no_lock': {'type': 'bool', 'default': False},
    'retries': {'type': 'int'},
    'stall_timeout': {'type': 'str'},
    'non_atomic_replace': {'type': 'bool', 'default': False},
    'haul_binary': {'type': 'path', 'default': 'haul'},
    # Of ansible.builtin.copy. Only the value that says what haul does is taken.
    'backup': {'type': 'bool', 'default': False},
    'remote_src': {'type': 'bool', 'default': False},
    'follow': {'type': 'bool', 'default': True},
    'local_follow': {'type': 'bool', 'default': True},
    'decrypt': {'type': 'bool', 'default': True},
    'unsafe_writes': {'type': 'bool', 'default': False},
    'content': {'type': 'raw', 'no_log': True},
    'validate': {'type': 'str'},
    'directory_mode': {'type': 'raw'},
    'attributes': {'type': 'str', 'aliases': ['attr']},
    'seuser': {'type': 'str'},
    'serole': {'type': 'str'},
    'setype': {'type': 'str'},
    'selevel': {'type': 'str'},
}

MUTUALLY_EXCLUSIVE = [('force', 'if_exists')]

# Parameter, the value that is taken, and what to do instead of another.
REFUSED = (
    ('backup', False, 'copy the file on the target before, with ansible.builtin.copy and remote_src'),
    ('remote_src', False, 'a file that is on the target already is for ansible.builtin.copy'),
    ('follow', True, 'a symbolic link at dest is followed; remove it before, with ansible.builtin.file'),
    ('local_follow', True, 'a symbolic link at src is followed'),
    ('unsafe_writes', False, 'non_atomic_replace is for servers that cannot replace a file atomically'),
    ('content', None, 'use ansible.builtin.copy'),
    ('validate', None, 'give the SHA-256 as checksum, or validate in a task of its own'),
    ('directory_mode', None, 'haul_put sends one file and makes no directory'),
    ('attributes', None, 'set them with ansible.builtin.file'),
    ('seuser', None, 'set it with ansible.builtin.file'),
    ('serole', None, 'set it with ansible.builtin.file'),
    ('setype', None, 'set it with ansible.builtin.file'),
    ('selevel', None, 'set it with ansible.builtin.file'),
)

SYMBOLIC = re.compile(r'[ugoa]+=[rwx]*(,[ugoa]+=[rwx]*)*')
SHA256 = re.compile(r'[0-9a-f]{64}')
VAULT_HEADER = b'$ANSIBLE_VAULT;'


def refuse(parameters):
    """Whatever haul does not do is refused before anything is done."""
    for name, taken, instead in REFUSED:
        if parameters.get(name) != taken:
            value = '' if taken is None else ': ' + ('true' if parameters[name] else 'false')
            raise Refused(f'haul_put does not support {name}{value}; {instead}')


def checksum(text):
    """The SHA-256 that the source has to have, in lower case, or None."""
    if text is None:
        return None
    digest = text.strip().lower().removeprefix('sha256:')
    if not SHA256.fullmatch(digest):
        raise Refused(
            f"checksum '{text}' is no SHA-256, which has 64 hexadecimal digits (ansible.builtin.copy has SHA-1 here)"
        )
    return digest


def check_source(path, decrypt):
    """path is where the source was found."""
    if os.path.isdir(path):
        raise Refused(
            f"src '{path}' is a directory, and haul_put sends one file; loop over its files"
            ' (with_fileglob), or use ansible.posix.synchronize'
        )
    try:
        with open(path, 'rb') as source:
            head = source.read(len(VAULT_HEADER))
    except OSError as problem:
        raise Refused(f"src '{path}': {problem.strerror}") from None
    if decrypt and head == VAULT_HEADER:
        raise Refused(
            f"src '{path}' is encrypted with Ansible Vault, and haul_put does not decrypt;"
            ' decrypt: false sends it as it is'
        )


def mode(value, source):
    """mode as ansible.builtin.copy takes it, as haul's --chmod takes it."""
    if value is None:
        return None
    if value == 'preserve':
        return f'{stat.S_IMODE(os.stat(source).st_mode):04o}'
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value <= 0o7777:
            return f'{value:04o}'
    elif isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r'[0-7]{1,5}', text) and int(text, 8) <= 0o7777:
            return f'{int(text, 8):04o}'
        classes = ''.join(clause.split('=')[0] for clause in text.split(','))
        if SYMBOLIC.fullmatch(text) and ('a' in classes or set('ugo') <= set(classes)):
            return text
    raise Refused(
        f"mode '{value}' is not supported by haul_put; it is octal in quotes ('0644'), 'preserve', or says = for"
        ' u, g and o (u=rw,g=r,o=r)'
    )


def arguments(parameters, source):
    """The arguments of haul put, without connection, SRC and DEST."""
    if_exists = parameters['if_exists'] or ('skip' if parameters['force'] is False else 'replace')
    made = [f'--if-exists={if_exists}', f"--verify={parameters['verify']}", f"--merge={parameters['merge']}"]
    chmod = mode(parameters['mode'], source)
    if chmod is not None:
        made.append(f'--chmod={chmod}')
    owner, group = parameters['owner'], parameters['group']
    for name, value in (('owner', owner), ('group', group)):
        if value is not None and (not value or ':' in value):
            raise Refused(f"{name} '{value}' is no name and no number")
    if owner is not None or group is not None:
        made.append('--chown=' + (owner or '') + (':' + group if group is not None else ''))
    for name in ('chunk_size', 'connections', 'bwlimit', 'user_id', 'retries', 'stall_timeout'):
        if parameters[name] is not None:
            made.append(f"--{name.replace('_', '-')}={parameters[name]}")
    for name in ('compress', 'quick', 'rehash', 'break_lock', 'no_lock', 'non_atomic_replace'):
        if parameters[name]:
            made.append('--' + name.replace('_', '-'))
    wait = parameters['wait']
    if isinstance(wait, str) and wait.lower() in ('yes', 'true', 'on'):
        wait = True
    if isinstance(wait, str) and wait.lower() in ('no', 'false', 'off', ''):
        wait = False
    if wait is True:
        made.append('--wait')
    elif wait not in (None, False):
        made.append(f'--wait={wait}s' if isinstance(wait, int) else f'--wait={wait}')
    return made
