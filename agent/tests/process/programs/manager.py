"""Stands for a service manager that keeps files for its service (FileDescriptorStoreMax= of systemd.service(5)).

argv[1] is where its notification socket goes, the rest the service's command. RESTART=1 at that socket kills the service
as a crash would and starts it again with the kept files from descriptor 3 on, as sd_listen_fds(3) describes. The names of
the kept files are in argv[1].kept.
"""
import ctypes, fcntl, os, signal, socket, sys

path, command = sys.argv[1], sys.argv[2:]
kept, service = [], 0


def start():
    global service
    service = os.fork()
    if service:
        return
    # The service goes with its manager, whatever ends that.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 500) for _, fd in kept]
    for number, fd in enumerate(high, 3):
        os.dup2(fd, number, inheritable=True)
    os.closerange(3 + len(high), 1000)
    environment = dict(os.environ, NOTIFY_SOCKET=path)
    if kept:
        names = ":".join(name for name, _ in kept)
        environment.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(kept)), LISTEN_FDNAMES=names)
    os.execvpe(command[0], command, environment)


manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind(path)
start()
while True:
    message, fds, _, _ = socket.recv_fds(manager, 4096, 4)
    fields = dict(line.split("=", 1) for line in message.decode().split("\n") if line)
    if "RESTART" in fields:
        os.kill(service, signal.SIGKILL)
        os.waitpid(service, 0)
        start()
    elif "FDSTORE" in fields:
        kept += [(fields["FDNAME"], fd) for fd in fds]
    elif "FDSTOREREMOVE" in fields:
        kept = [(name, fd) for name, fd in kept if name != fields["FDNAME"] or os.close(fd)]
    with open(path + ".new", "w") as names:
        names.write("\n".join(sorted(name for name, _ in kept)))
    os.rename(path + ".new", path + ".kept")
