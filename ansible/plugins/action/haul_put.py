# haul_put on the controller: checks what was asked, runs haul, and tells what came out.
# Nothing of Ansible runs on the target.

from __future__ import annotations

import shlex

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.haul.haul.plugins.plugin_utils import parameters as p
from ansible_collections.haul.haul.plugins.plugin_utils import run, way
from ansible_collections.haul.haul.plugins.plugin_utils.way import Refused

# haul's exit code for a host that cannot be reached or logged in to.
UNREACHABLE = 10

CHANGED = {'uploaded': True, 'would-upload': True, 'unchanged': False, 'skipped': False}
FIELDS = (
    'size', 'mode', 'uid', 'gid', 'status', 'verified_by', 'merge', 'chunks_total', 'chunks_sent',
    'chunks_skipped', 'bytes_sent', 'resumed', 'seconds',
)


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        _validated, parameters = self.validate_argument_spec(p.SPEC, mutually_exclusive=p.MUTUALLY_EXCLUSIVE)
        try:
            result.update(self._put(parameters))
        except Refused as problem:
            raise AnsibleActionFail(str(problem)) from None
        return result

    def _put(self, parameters):
        p.refuse(parameters)
        wanted = p.checksum(parameters['checksum'])
        source = self._find(parameters)
        binary = run.find(parameters['haul_binary'])
        command = [binary, 'put', '--json', '--hosts-file=none']
        command += self._verbosity()
        command += self._connection_arguments()
        command += p.arguments(parameters, source)
        check, diff = self._task.check_mode, self._task.diff
        if check:
            command.append('--dry-run')
        if diff:
            command.append('--hash-existing')
        command += ['--', source, way.destination(self._option('host'), parameters['dest'])]
        if wanted is not None and run.sha256(source) != wanted:
            raise Refused(f"src '{source}' does not have the SHA-256 given as checksum")

        self._display.vvv('haul: ' + shlex.join(command), host=self._option('host'))
        warnings = []
        password = way.password(self._option)
        status, told, lines = run.run(command, password, lambda event: self._hear(event, warnings))
        made = self._outcome(status, told, lines, parameters, source)
        if warnings:
            made['warnings'] = warnings
        if check and told is not None and told.get('status') == 'would-upload':
            made['checksum'] = made['sha256'] = run.sha256(source)
        if diff and made.get('changed'):
            made['diff'] = _diff(made, told)
        return made

    def _find(self, parameters):
        """src as ansible.builtin.copy finds it: in the role's files, beside the playbook."""
        try:
            source = self._find_needle('files', parameters['src'])
        except AnsibleError as problem:
            raise Refused(' '.join(str(problem).split())) from None
        p.check_source(source, parameters['decrypt'])
        return source

    def _verbosity(self):
        if self._display.verbosity < 2:
            return ['--quiet']
        return ['--verbose'] if self._display.verbosity > 2 else []

    def _option(self, name):
        """An option of the connection plugin; older ones do not have all."""
        try:
            return self._connection.get_option(name)
        except KeyError:
            return None

    def _is_default(self, name):
        try:
            return self._connection.get_option_and_origin(name)[1] == 'default'
        except KeyError:
            return True

    def _connection_arguments(self):
        transport = self._connection.transport
        if transport != 'ssh':
            hint = '; for this machine use ansible.builtin.copy' if transport == 'local' else ''
            raise Refused(f"haul_put works over the connection 'ssh', not '{transport}'{hint}")
        arguments = way.arguments(self._option, self._is_default)
        become = self._connection.become
        if become is not None:
            def option(name):
                try:
                    return become.get_option(name, playcontext=self._play_context)
                except KeyError:
                    return None
            # As Ansible does: whoever is that user already needs no sudo.
            same = (option('become_user') or 'root') == self._option('remote_user')
            if not same or constants.BECOME_ALLOW_SAME_USER:
                arguments.append(way.sudo(become.name, option))
        return arguments

    def _hear(self, event, warnings):
        host = self._option('host')
        kind = event.get('event')
        if kind in ('phase', 'progress'):
            self._display.vv('haul: ' + run.progress_line(event), host=host)
        elif kind == 'notice' and event.get('level') == 'warning':
            warnings.append(str(event.get('text')))
        elif kind == 'notice':
            self._display.vv('haul: ' + str(event.get('text')), host=host)
        elif kind == 'retry':
            text = f"{event.get('error')}; trying again ({event.get('attempt')} of {event.get('limit')})"
            self._display.v('haul: ' + text, host=host)

    def _outcome(self, status, told, lines, parameters, source):
        if status != 0 or told is None or told.get('status') not in CHANGED:
            return self._failure(status, told, lines)
        made = {field: told.get(field) for field in FIELDS}
        made.update(
            changed=CHANGED[told['status']] or bool(told.get('attributes_changed')),
            src=source,
            dest=told.get('target'),
            checksum=told.get('sha256'),
            sha256=told.get('sha256'),
            checksum_algorithm='sha256',
            state='file',
        )
        # Names are known only where the task said them.
        for name in ('owner', 'group'):
            if parameters[name] is not None and not parameters[name].isdigit():
                made[name] = parameters[name]
        return made

    def _failure(self, status, told, lines):
        error = told.get('error') if told else None
        if status < 0:
            error = error or f'haul was ended by signal {-status}'
        error = error or run.error_line(lines)
        made = {'failed': True, 'changed': False, 'msg': f'{error} (haul: exit code {status})', 'exit_code': status}
        if told:
            made['phase'] = told.get('phase')
        if status == UNREACHABLE:
            # What is failed too counts as failed only.
            made.update(failed=False, unreachable=True)
        return made


def _diff(made, told):
    before = told.get('before') or {}
    after = {**made, 'sha256': made.get('sha256') or before.get('sha256')}
    return {
        'before_header': made['dest'],
        'after_header': made['dest'],
        'before': _described(before, after),
        'after': _described(after, before or after),
    }


def _described(file, other):
    """Line by line what is known of both; of a file that is not there nothing."""
    lines = [
        f'{name}: {file[name]}\n'
        for name in ('size', 'sha256', 'mode', 'uid', 'gid')
        if file.get(name) is not None and other.get(name) is not None
    ]
    return ''.join(lines)
