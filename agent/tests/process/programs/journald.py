"""Stands for systemd's journal: takes the place of its socket, runs argv[2:] with the journal as its stdout, and writes the
fields of each entry to argv[1] as one JSON object per line (the native protocol, systemd's JOURNAL_NATIVE_PROTOCOL). To be run in
a mount name space of its own: it covers /run.
"""
import json, os, socket, struct, subprocess, sys

SOCKET = "/run/systemd/journal/socket"


def fields(entry):
    """NAME=value, or NAME, a length of eight bytes and a value that may hold line feeds."""
    found = {}
    while entry:
        head, _, rest = entry.partition(b"\n")
        if b"=" in head:
            name, _, value = head.partition(b"=")
        else:
            (length,) = struct.unpack("<Q", rest[:8])
            name, value, rest = head, rest[8 : 8 + length], rest[9 + length :]
        found[name.decode()] = value.decode()
        entry = rest
    return found


subprocess.run(["mount", "-t", "tmpfs", "journal", "/run"], check=True)
os.makedirs(os.path.dirname(SOCKET))
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind(SOCKET)
stream, other = socket.socketpair()
found = os.fstat(stream.fileno())
service = dict(os.environ, JOURNAL_STREAM=f"{found.st_dev}:{found.st_ino}")
subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--"] + sys.argv[2:], stdout=stream, env=service)
with open(sys.argv[1], "w") as entries:
    while True:
        print(json.dumps(fields(journal.recv(1 << 20))), file=entries, flush=True)
