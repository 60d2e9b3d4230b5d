# The way to a host: what Ansible's options become. Run by way.rs.

from __future__ import annotations

import unittest

from ansible_collections.haul.haul.plugins.plugin_utils import run, way
from ansible_collections.haul.haul.plugins.plugin_utils.way import Refused

NOTHING = {'host': 'web1', 'host_key_checking': True, 'ssh_executable': 'ssh', 'ssh_args': '-C -o ControlMaster=auto'}


def arguments(defaults=('ssh_args',), **options):
    return way.arguments({**NOTHING, **options}.get, lambda name: name in defaults)


class Arguments(unittest.TestCase):
    def assert_made(self, expected, **options):
        self.assertEqual(arguments(**options), ['-o', 'BatchMode=yes', *expected])

    def test_nothing(self):
        self.assert_made([])

    def test_variables(self):
        self.assert_made(
            ['-o', 'StrictHostKeyChecking=accept-new', '-o', 'Port=2222', '-i', '/k y', '-o', 'User=a b',
             '-o', 'ConnectTimeout=10'],
            host_key_checking=False, port=2222, private_key_file='/k y', remote_user='a b', timeout=10,
        )

    def test_a_password_is_no_batch_mode(self):
        self.assertEqual(arguments(password='x'), [])
        self.assertEqual(arguments(password='x', password_mechanism='disable'), ['-o', 'BatchMode=yes'])

    def test_words(self):
        for text, expected in (
            ('-o ProxyJump=bastion', ['-o', 'ProxyJump=bastion']),
            ("-o 'ProxyCommand=ssh -W %h:%p b'", ['-o', 'ProxyCommand=ssh -W %h:%p b']),
            ('-oPort=1 -o "User x"', ['-o', 'Port=1', '-o', 'User=x']),
            ('-o "Ciphers = a,b"', ['-o', 'Ciphers=a,b']),
            ('-J a,b -F /c -i /k -i/l', ['-J', 'a,b', '-F', '/c', '-i', '/k', '-i', '/l']),
            ('-p 1 -l u -c x -m y', ['-o', 'Port=1', '-o', 'User=u', '-o', 'Ciphers=x', '-o', 'MACs=y']),
            ('-4C -6', ['-4', '-C', '-6']),
            ('-vvqAT -o ControlPath=none -oForwardAgent=yes -o LogLevel=ERROR', []),
            ('', []),
        ):
            self.assert_made(expected, ssh_common_args=text)
            self.assert_made(expected, sftp_extra_args=text)

    def test_the_first_counts(self):
        self.assert_made(
            ['-o', 'Port=1', '-J', 'a', '-o', 'IdentityFile=a', '-o', 'identityfile=b'],
            port=1, ssh_common_args='-J a -p 2 -o port=3',
            ssh_extra_args='-J b -o IdentityFile=a -o identityfile=b -P 4',
        )
        self.assert_made(
            ['-o', 'StrictHostKeyChecking=accept-new'],
            host_key_checking=False, ssh_common_args='-o StrictHostKeyChecking=no',
        )

    def test_ssh_args_count_where_someone_set_them(self):
        self.assertIn('-C', arguments(defaults=()))
        self.assertNotIn('-C', arguments())

    def test_refused(self):
        for options in (
            {'ssh_common_args': '-W a:1'},
            {'ssh_common_args': '-D 1080'},
            {'ssh_common_args': 'host'},
            {'ssh_common_args': '-'},
            {'ssh_common_args': '-o'},
            {'ssh_common_args': '-o Port'},
            {'ssh_common_args': '-o =1'},
            {'ssh_common_args': "-o 'x"},
            {'private_key': 'x'},
            {'pkcs11_provider': 'x'},
            {'ssh_executable': '/opt/my-ssh'},
        ):
            with self.assertRaises(Refused) as problem:
                arguments(**options)
            self.assertNotIn('\n', str(problem.exception), options)


class Others(unittest.TestCase):
    def test_destination(self):
        for host, dest, expected in (
            ('web1', '/srv/x', 'sftp://[web1]/srv/x'),
            ('web1', 'x', 'sftp://[web1]/~/x'),
            ('web1', '~/x', 'sftp://[web1]/~/x'),
            ('web1', '~', 'sftp://[web1]/~/'),
            ('web1', '/~/x', 'sftp://[web1]/./~/x'),
            ('fe80::1%eth0', '/a b%:@', 'sftp://[fe80%3A%3A1%25eth0]/a%20b%25%3A%40'),
            ('web1', '/gr\u00fcn\udcff', 'sftp://[web1]/gr%C3%BCn%FF'),
        ):
            self.assertEqual(way.destination(host, dest), expected)
        with self.assertRaises(Refused):
            way.destination('web1', '~bob/x')

    def test_sudo(self):
        def sudo(name='sudo', **options):
            return way.sudo(name, options.get)
        self.assertEqual(sudo(), '--sudo=root')
        self.assertEqual(sudo(become_user='www', become_flags='-H -S -n', become_exe='sudo'), '--sudo=www')
        for refused in ({'name': 'su'}, {'become_pass': 'x'}, {'become_flags': '-E'}, {'become_exe': '/opt/sudo'},
                        {'sudo_chdir': '/'}):
            with self.assertRaises(Refused):
                sudo(**refused)

    def test_password(self):
        self.assertIsNone(way.password({}.get))
        self.assertIsNone(way.password({'password': 'x', 'password_mechanism': 'disable'}.get))
        self.assertEqual(way.password({'password': 'x y'}.get), 'x y')
        with self.assertRaises(Refused):
            way.password({'password': 'x\ny'}.get)

    def test_lines(self):
        self.assertEqual(run.error_line(['', 'haul: x: y', 'more']), 'x: y')
        self.assertEqual(run.error_line(["error: invalid value"]), 'invalid value')
        self.assertEqual(run.error_line([]), 'haul said nothing')
        event = {'phase': 'upload', 'done': 512, 'total': 2048, 'rate': 1024.0}
        self.assertEqual(run.progress_line(event), 'upload 25% (512 B of 2.0 KiB, 1.0 KiB/s)')
        self.assertEqual(run.progress_line({'phase': 'commit', 'done': 0, 'total': 0, 'rate': None}), 'commit')


if __name__ == '__main__':
    unittest.main()
