"""Runs a program as a systemd unit would confine it: confined.py UNIT WRITABLE PROGRAM ARGUMENT...

Carried out: ProtectSystem=strict (a mount namespace in which only WRITABLE can be written), CapabilityBoundingSet=,
NoNewPrivileges=, SystemCallFilter=, SystemCallErrorNumber=EPERM, RestrictAddressFamilies=, RestrictNamespaces=, RestrictRealtime=, UMask=.
The groups of system calls are asked from systemd-analyze, so that they are those of this systemd. Not carried out: the device
policy, the private /tmp, and what hides a part of /proc or /sys.
"""
import ctypes, os, subprocess, sys

# It starts itself again with this word once its capabilities are bounded.
bounded = sys.argv[1] == "bounded"
unit, writable, *program = sys.argv[2 if bounded else 1 :]
settings = dict(line.strip().split("=", 1) for line in open(unit) if "=" in line and not line.startswith("#"))

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
EPERM, ENOSYS, ENOTSUP_FAMILY = 1, 38, 97
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
NAMESPACES = 0x7E020080  # all CLONE_NEW* flags
NOT_EQUAL, MASKED_EQUAL, GREATER = 1, 7, 6


def group(name):
    """The system calls of a group, groups inside it included."""
    out = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True).stdout
    calls = set()
    for word in (line.strip() for line in out.splitlines()[1:]):
        if word.startswith("@"):
            calls |= group(word)
        elif word and not word.startswith("#"):
            calls.add(word)
    return calls


def allowed():
    calls = set()
    for word in settings["SystemCallFilter"].split():
        calls |= group(word) if word.startswith("@") else {word}
    return calls


class Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
lib.seccomp_init.restype = ctypes.c_void_p
for function in (lib.seccomp_load, lib.seccomp_rule_add_array):
    function.restype = ctypes.c_int
lib.seccomp_load.argtypes = [ctypes.c_void_p]
lib.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Compare)]


def rule(context, action, name, *compares):
    number = lib.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        return  # not on this kind of machine
    array = (Compare * len(compares))(*compares)
    code = lib.seccomp_rule_add_array(context, action, number, len(compares), array)
    assert code == 0, (name, code)


def load(default, rules):
    context = lib.seccomp_init(default)
    for action, name, *compares in rules:
        rule(context, action, name, *compares)
    assert lib.seccomp_load(context) == 0


def filters():
    """One filter for what looks at arguments, one for the list of calls: the kernel takes the stricter answer."""
    calls = allowed()
    families = [FAMILIES[name] for name in settings["RestrictAddressFamilies"].split()]
    others = [f for f in range(max(families) + 1) if f not in families]
    rules = [(ERRNO | ENOTSUP_FAMILY, "socket", Compare(0, 4, f, 0)) for f in others]
    rules.append((ERRNO | ENOTSUP_FAMILY, "socket", Compare(0, GREATER, max(families), 0)))
    if settings["RestrictNamespaces"] == "yes":
        bits = [1 << n for n in range(32) if NAMESPACES >> n & 1]
        rules += [(ERRNO | EPERM, name, Compare(0, MASKED_EQUAL, bit, bit)) for name in ("clone", "unshare") for bit in bits]
        # Its flags are in memory, where no filter can look: systemd says that there is no such call.
        rules += [(ERRNO | ENOSYS, "clone3"), (ERRNO | EPERM, "setns")]
    if settings["RestrictRealtime"] == "yes":
        rules.append((ERRNO | EPERM, "sched_setscheduler", Compare(1, NOT_EQUAL, 0, 0)))
    load(ALLOW, rules)
    # The last one, as it forbids to load another.
    assert settings["SystemCallErrorNumber"] == "EPERM"
    load(ERRNO | EPERM, [(ALLOW, name) for name in sorted(calls)])


def mounts():
    assert settings["ProtectSystem"] == "strict"
    run = lambda *command: subprocess.run(["mount", *command], check=True)
    run("--make-rprivate", "/")
    run("--bind", writable, writable)
    run("-o", "remount,bind,ro", "/")
    os.chdir(writable)


if not bounded:
    mounts()
    names = ",+".join(name.removeprefix("CAP_").lower() for name in settings["CapabilityBoundingSet"].split())
    assert settings["NoNewPrivileges"] == "yes"
    setpriv = ["setpriv", "--inh-caps=-all", f"--bounding-set=-all,+{names}", "--no-new-privs", "--"]
    os.execvp("setpriv", setpriv + [sys.executable, sys.argv[0], "bounded", *sys.argv[1:]])
os.umask(int(settings["UMask"], 8))
filters()
os.execvp(program[0], program)
