"""Runs the cases that come as JSON through subprocess.run, and tells how each went."""

import json
import subprocess
import sys

results = []
for case in json.load(sys.stdin):
    unhex = bytes.fromhex
    options = {}
    if case["cwd"] is not None:
        options["cwd"] = unhex(case["cwd"])
    if case["env"] is not None:
        options["env"] = {unhex(name): unhex(value) for name, value in case["env"]}
    if case["timeout"] is not None:
        options["timeout"] = case["timeout"]
    options["stdout"] = subprocess.DEVNULL if case["discard"] else subprocess.PIPE
    if case["merge"]:
        options["stderr"] = subprocess.STDOUT
    else:
        options["stderr"] = subprocess.DEVNULL if case["discard"] else subprocess.PIPE
    try:
        done = subprocess.run([unhex(word) for word in case["argv"]], input=unhex(case["input"]), **options)
        outcome = {"code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
    except subprocess.TimeoutExpired as error:
        outcome = {"code": "TimeoutExpired", "stdout": error.stdout, "stderr": error.stderr}
    except OSError as error:
        about_cwd = error.filename is not None and options.get("cwd") == error.filename
        outcome = {"code": "cwd" if about_cwd else type(error).__name__, "stdout": b"", "stderr": b""}
    for stream in ("stdout", "stderr"):
        outcome[stream] = (outcome[stream] or b"").hex()
    results.append(outcome)
json.dump(results, sys.stdout)
