"""Stands for a slurmstepd with its ranks. It forks argv[2] ranks and passes them lines from its standard input, `RANK
COMMAND`; each answers with one line. argv[1] is the path of the agent's second socket.

fetch     asks for the segment, maps it, and says what came
put TEXT  writes at the segment's beginning          get N   shows its first N bytes
truncate N, grow N, write-seal  try to change the file   touched  kilobytes that are in use
drop-fd   closes the descriptor and keeps the mapping    forget   lets go of both
child     what a process that the rank starts gets from a fetch
pid       the process id           stepd   that of the slurmstepd
"""
import fcntl, json, mmap, os, socket, sys

SEAL_WRITE, ADD_SEALS = 8, 1033
held = {"fd": None, "map": None}


def ask():
    with socket.socket(socket.AF_UNIX) as client:
        # Connected without a time-out: with one the socket does not block, and a full backlog is an error at once (EAGAIN).
        client.connect(sys.argv[1])
        client.settimeout(60)
        client.sendall(b'{"segment":{"v":1}}\n')
        line, fds, _, _ = socket.recv_fds(client, 4096, 4)
        while line and not line.endswith(b"\n"):
            line += client.recv(4096)
    answer = json.loads(line)
    if "refused" in answer:
        return None, "refused: " + answer["refused"]["reason"]
    segment = answer["segment"]
    return fds[0], f"job {segment['job']} step {segment['step']} bytes {segment['bytes']}"


def tried(action):
    try:
        action()
        return "done"
    except OSError as error:
        return os.strerror(error.errno)


def do(command, word):
    fd, memory = held["fd"], held["map"]
    if command == "fetch":
        fd, text = ask()
        if fd is not None:
            held.update(fd=fd, map=mmap.mmap(fd, os.fstat(fd).st_size))
        return text
    if command == "put":
        memory[: len(word)] = word.encode()
        return "put"
    if command == "get":
        return memory[: int(word)].decode()
    if command in ("truncate", "grow"):
        return tried(lambda: os.ftruncate(fd, int(word)))
    if command == "write-seal":
        return tried(lambda: fcntl.fcntl(fd, ADD_SEALS, SEAL_WRITE))
    if command == "touched":
        return str(os.fstat(fd).st_blocks // 2)
    if command == "drop-fd":
        os.close(fd)
        held["fd"] = None
        return "dropped"
    if command == "forget":
        memory.close()
        os.close(fd)
        held.update(fd=None, map=None)
        return "forgotten"
    if command == "child":
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.setsid()
            os.write(writer, ask()[1].encode())
            os._exit(0)
        os.close(writer)
        with open(reader) as answer:
            text = answer.read()
        os.wait()
        return text
    if command == "stepd":
        return str(os.getppid())
    return str(os.getpid())


def rank(lines, answers):
    for line in lines:
        command, _, word = line.rstrip("\n").partition(" ")
        print(do(command, word), file=answers, flush=True)
    os._exit(0)


def start():
    (to_read, to_write), (from_read, from_write) = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(to_write)
        rank(open(to_read), open(from_write, "w"))
    os.close(to_read), os.close(from_write)
    return open(to_write, "w"), open(from_read)


ranks = [start() for _ in range(int(sys.argv[2]))]
print("started", flush=True)
for line in sys.stdin:
    number, _, command = line.partition(" ")
    to, answers = ranks[int(number)]
    to.write(command)
    to.flush()
    # An empty line is the end of the rank, and the end of this: the test must not wait for ever.
    answer = answers.readline()
    if not answer:
        sys.exit(f"rank {number} has ended")
    print(answer, end="", flush=True)
