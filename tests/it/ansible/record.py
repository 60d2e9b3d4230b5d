# Writes every result of a playbook to the file $RECORD, one JSON object a line.

from __future__ import annotations

import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: record
type: aggregate
short_description: results for a test
description: results for a test
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = 'aggregate'
    CALLBACK_NAME = 'record'

    def _write(self, outcome, result):
        told = dict(result._result)
        told['outcome'] = outcome
        told['inventory_host'] = result._host.get_name()
        told['task'] = result._task.get_name()
        with open(os.environ['RECORD'], 'a', encoding='utf-8') as record:
            record.write(json.dumps(told, default=str) + '\n')

    def v2_runner_on_ok(self, result):
        self._write('ok', result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._write('failed', result)

    def v2_runner_on_unreachable(self, result):
        self._write('unreachable', result)
