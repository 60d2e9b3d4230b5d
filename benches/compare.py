#!/usr/bin/env python3
"""Uploads one random file with haul and with the tools people use today, in one run.

    benches/compare.py                       1 GiB over loopback, 5 rounds
    benches/compare.py --size 200M --netem 'delay 25ms rate 1gbit'
    benches/compare.py --svg benches/table.svg --json runs.json

It starts an OpenSSH server of its own, with its own keys, in a temporary directory in memory,
builds haul in release mode, and takes the tools in turn, round after round, so that a change
in the machine's pace hits all of them. In each round it compares the SHA-256 of what arrived.
Every tool runs with its defaults. Seconds of the processor are those of the client and of all
the server's processes. scp is 1; higher is faster.

--netem needs root and the kernel's sch_netem: client and server get a network namespace each,
joined by a pair of interfaces, with these settings in each direction. --namespaces takes two
that are there already, with whatever emulator between them.
"""

import argparse
import getpass
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SFTP_SERVERS = ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"]
SECONDS_A_RUN = 600
TICKS = os.sysconf("SC_CLK_TCK")

# {o}: ssh's options, {p}: the port, {src}, {to}: user@host:path, {dst}: path, {at}: user@host
TOOLS = {
    "scp": "scp -q {o} -P {p} {src} {to}",
    "sftp": "sh -c 'echo put {src} {dst} | sftp -q -b - {o} -P {p} {at} >/dev/null'",
    "rsync": "rsync -a -e 'ssh {o} -p {p}' {src} {to}",
    "rclone": "rclone --config /dev/null copyto {src} :sftp,host={h},port={p},user={u},key_file={k},"
              "known_hosts_file={kh},shell_type=unix:{dst}",
    "lftp": "lftp -e 'set sftp:connect-program \"ssh -a -x {o}\"; open -u {u}, sftp://{h}:{p}; "
            "put {src} -o {dst}; bye'",
    "mscp": "mscp -q -P {p} -i {k} -o UserKnownHostsFile={kh} {src} {to}",
    "haul": "{haul} put -q {o} -P {p} {src} {to}",
}


def bytes_of(text):
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(float(text[:-1]) * units[text[-1].upper()]) if text[-1].upper() in units else int(text)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Server:
    """An sshd with keys of its own, perhaps at the other end of an emulated link."""

    def __init__(self, directory, netem, namespaces):
        self.directory = directory
        self.host = "127.0.0.1"
        self.prefix, self.server_prefix = [], []
        if netem:
            self.link(netem)
        elif namespaces:
            client, server, self.host = namespaces.split(",")
            self.prefix, self.server_prefix = (["ip", "netns", "exec", name] for name in (client, server))
        for name in ("host_key", "key"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name])
        shutil.copy(directory / "key.pub", directory / "authorized_keys")
        self.port = free_port()
        server = next((path for path in SFTP_SERVERS if os.path.exists(path)), None)
        if server is None:
            sys.exit("no sftp-server found: install openssh-server")
        lines = [
            f"Port {self.port}", f"HostKey {directory}/host_key", f"AuthorizedKeysFile {directory}/authorized_keys",
            "StrictModes no", "UsePAM no", "PermitRootLogin yes", f"PidFile {directory}/pid",
            f"Subsystem sftp {server}", "LogLevel ERROR",
        ]
        (directory / "sshd_config").write_text("\n".join(lines) + "\n")
        os.makedirs("/run/sshd", exist_ok=True)
        sshd = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
        self.process = subprocess.Popen(
            [*self.server_prefix, sshd, "-D", "-e", "-f", directory / "sshd_config"], stderr=subprocess.DEVNULL)
        key = (directory / "host_key.pub").read_text().split()[:2]
        (directory / "known_hosts").write_text(f"[{self.host}]:{self.port} {' '.join(key)}\n")
        options = ["UserKnownHostsFile=" + str(directory / "known_hosts"), "IdentitiesOnly=yes", "BatchMode=yes"]
        self.options = " ".join(["-F none", f"-i {directory}/key", *[f"-o {option}" for option in options]])
        for _ in range(100):
            if subprocess.run(self.command("ssh {o} -p {p} {at} true", {}), shell=True, check=False,
                              stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.1)
        sys.exit("sshd does not start")

    def link(self, netem):
        names = [f"haul-bench-{end}-{os.getpid()}" for end in "cs"]
        self.namespaces = names
        for name in names:
            run(["ip", "netns", "add", name])
        run(["ip", "link", "add", "bench0", "netns", names[0], "type", "veth", "peer", "name", "bench1", "netns", names[1]])
        for name, device, address in zip(names, ("bench0", "bench1"), ("198.18.77.1", "198.18.77.2")):
            inside = ["ip", "netns", "exec", name]
            run([*inside, "ip", "address", "add", f"{address}/24", "dev", device])
            run([*inside, "ip", "link", "set", device, "up"])
            run([*inside, "ip", "link", "set", "lo", "up"])
            run([*inside, "tc", "qdisc", "add", "dev", device, "root", "netem", *netem.split()])
        self.host = "198.18.77.2"
        self.prefix, self.server_prefix = (["ip", "netns", "exec", name] for name in names)

    def command(self, template, more):
        user = getpass.getuser()
        words = {"o": self.options, "p": self.port, "h": self.host, "u": user, "at": f"{user}@{self.host}",
                 "k": self.directory / "key", "kh": self.directory / "known_hosts", **more}
        words["to"] = f"{words['at']}:{words.get('dst', '')}"
        return " ".join([*self.prefix, template.format(**words)])

    def seconds(self):
        """Of all the server's processes that have ended; sessions end with their client."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return sum(int(field) for field in fields[11:15]) / TICKS

    def settle(self):
        """Waits until the last session has been reaped, so that its seconds are counted."""
        for _ in range(200):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            if not children:
                return
            time.sleep(0.02)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        for name in getattr(self, "namespaces", []):
            subprocess.run(["ip", "netns", "delete", name], check=False)


def free_port():
    import socket
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(command):
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def measure(server, command):
    """Wall seconds, the client's and the server's processor seconds, peak memory in MiB."""
    before = server.seconds()
    began = time.monotonic()
    child = subprocess.Popen(["sh", "-c", "exec " + command], stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    server.settle()
    if child.returncode != 0:
        sys.exit(f"exit status {child.returncode}: {command}")
    client = usage.ru_utime + usage.ru_stime
    return {"wall": wall, "client": client, "server": server.seconds() - before, "rss": usage.ru_maxrss / 1024}


def paired(base, runs):
    """How much faster than scp in the same round, the median of all rounds."""
    return statistics.median(b["wall"] / r["wall"] for b, r in zip(base, runs))


def table(results, size):
    rows = ["| tool | seconds | MB/s | speed, scp = 1 | CPU s client + server | peak MiB |",
            "| --- | --- | --- | --- | --- | --- |"]
    base = results.get("scp")
    for name, runs in sorted(results.items(), key=lambda item: statistics.median(r["wall"] for r in item[1])):
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        ratio = paired(base, runs) if base else float("nan")
        spread = f"{min(r['wall'] for r in runs):.2f}–{max(r['wall'] for r in runs):.2f}"
        rows.append(f"| {name} | {middle['wall']:.2f} ({spread}) | {size / middle['wall'] / 1e6:.0f} | {ratio:.2f} | "
                    f"{middle['client']:.2f} + {middle['server']:.2f} | {max(r['rss'] for r in runs):.0f} |")
    return "\n".join(rows)


def picture(results, title):
    """Bars of speed against scp."""
    speeds = sorted(((paired(results["scp"], runs), name) for name, runs in results.items()), reverse=True)
    most = max(speed for speed, _ in speeds)
    height = 40 + 26 * len(speeds)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{height}" font-family="sans-serif" '
             f'font-size="13"><rect width="640" height="{height}" fill="#fff"/>'
             f'<text x="10" y="20" font-weight="bold">{title}</text>']
    for number, (speed, name) in enumerate(speeds):
        y = 34 + 26 * number
        colour = "#0b7285" if name == "haul" else "#adb5bd"
        parts.append(f'<text x="70" y="{y + 14}" text-anchor="end">{name}</text>'
                     f'<rect x="80" y="{y}" width="{speed / most * 480:.0f}" height="18" fill="{colour}"/>'
                     f'<text x="{86 + speed / most * 480:.0f}" y="{y + 14}">{speed:.2f}</text>')
    return "".join(parts) + "</svg>\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1G", help="such as 200M (default: 1G)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tools", default=",".join(TOOLS), help="those that are installed of these are compared")
    parser.add_argument("--netem", help="settings of tc-netem(8) for each direction")
    parser.add_argument("--namespaces", metavar="CLIENT,SERVER,ADDRESS", help="network namespaces, and the server's address")
    parser.add_argument("--link", help="what that link is, for the title")
    parser.add_argument("--haul", help="a binary to take; else it is built")
    parser.add_argument("--haul-options", default="", help="such as '--verify size'")
    parser.add_argument("--memory", default="/dev/shm", help="where source and target lie (default: /dev/shm)")
    parser.add_argument("--svg", help="draws the result into this file")
    parser.add_argument("--json", help="writes every run into this file")
    asked = parser.parse_args()

    haul = asked.haul
    if not haul:
        subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
        haul = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "haul"
    tools = [name for name in asked.tools.split(",") if name == "haul" or shutil.which(name)]
    size = bytes_of(asked.size)
    results = {name: [] for name in tools}
    with tempfile.TemporaryDirectory(dir=asked.memory) as directory:
        directory = Path(directory)
        source = directory / "source"
        with open(source, "wb") as file:
            for _ in range(0, size, 1 << 20):
                file.write(os.urandom(1 << 20))
            file.truncate(size)
        expected = digest(source)
        server = Server(directory, asked.netem, asked.namespaces)
        try:
            # The first round warms the caches and is not counted.
            for number in range(asked.rounds + 1):
                for name in tools:
                    target = directory / f"target-{name}"
                    more = {"src": source, "dst": target, "haul": f"{haul}"}
                    template = TOOLS[name] + (" " + asked.haul_options if name == "haul" else "")
                    figures = measure(server, server.command(template, more))
                    if digest(target) != expected:
                        sys.exit(f"{name}: what arrived is not what was sent")
                    target.unlink()
                    if number:
                        results[name].append(figures)
                        print(f"round {number} {name:8} {figures['wall']:7.2f} s", file=sys.stderr)
        finally:
            server.stop()
    way = asked.link or asked.netem or "loopback"
    cores = os.cpu_count()
    title = f"{asked.size} over {way}, {cores} cores, {time.strftime('%Y-%m-%d')}: speed, scp = 1"
    print(f"{title}; {platform.machine()}, medians of {asked.rounds}, digests compared in every round\n")
    print(table(results, size))
    if asked.svg and "scp" in results:
        Path(asked.svg).write_text(picture(results, title))
    if asked.json:
        Path(asked.json).write_text(json.dumps({"title": title, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
