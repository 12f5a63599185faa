"""Segments and communicators."""

import contextlib
import ctypes
import os

from ._buffer import Buffer
from ._library import LIBRARY, Error, call, make
from ._waiting import SLICE, Request, joined

__all__ = ["Comm", "Error", "Request", "Segment"]

OPS = {"sum": 0, "product": 1, "min": 2, "max": 3, "average": 4}


def _op(op, buffer):
    if op not in OPS:
        raise ValueError(f"op is one of {', '.join(OPS)}")
    if buffer.is_bool and op not in ("min", "max"):
        raise TypeError(f'bool has no {op}: op="max" is "or", op="min" is "and"')
    if buffer.is_complex and op not in ("sum", "average"):
        raise TypeError(f"complex numbers have sum and average, no {op}")
    return OPS[op]


def _number(value, what):
    """A number for an argument of 32 bits: ctypes would cut off what does not fit."""
    if not -(1 << 31) <= value < 1 << 31:
        raise ValueError(f"{what} {value} is out of range")
    return value


class Segment:
    """Memory that the ranks share."""

    def __init__(self, handle):
        self._handle = handle

    @classmethod
    def create(cls, ranks, nbytes=0):
        """A sealed anonymous segment; `nbytes` 0 is a good default. Hand `fileno()` to the other processes."""
        return cls(make("segment_create", nbytes, ranks))

    @classmethod
    def from_fd(cls, fd, ranks):
        return cls(make("segment_from_fd", fd, ranks))

    @classmethod
    def from_env(cls, ranks):
        """The step's segment: MIGSHARE_SEGMENT_FD, or the agent at MIGSHARE_SEGMENT_SOCKET."""
        return cls(make("segment_from_env", ranks))

    @classmethod
    def create_named(cls, name, ranks, nbytes=0):
        """A segment that other processes of this user open by its name, such as "/my-job"; the name goes with this object.

        It cannot be sealed: any of the user's processes can damage it, and the name outlives a killed one.
        """
        return cls(make("segment_create_named", name.encode(), nbytes, ranks))

    @classmethod
    def open_named(cls, name, ranks):
        return cls(make("segment_open_named", name.encode(), ranks))

    @classmethod
    def of_process(cls, pid, fd, ranks):
        """The segment that another process of this user has under the descriptor `fd`."""
        copy = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            return cls.from_fd(copy, ranks)
        finally:
            os.close(copy)

    def claim(self):
        """Takes the step's segment for this process and those that it tells; False where another program has it open."""
        try:
            return call("segment_claim", self._handle)
        except Error as error:
            if error.status != "EXHAUSTED":
                raise
            return False

    def fileno(self):
        return LIBRARY.migshare_segment_fd(self._handle)

    def __del__(self):
        if self._handle:
            call("segment_free", self._handle)
            self._handle = None


class Comm:
    """A group of ranks. One thread at a time may use it."""

    def __init__(self, handle):
        self._handle = handle
        #: Buffers of started operations, by request: the library reads and writes them until these are done.
        self._in_use = {}
        rank, size = ctypes.c_int32(), ctypes.c_int32()
        call("comm_rank", handle, ctypes.byref(rank))
        call("comm_size", handle, ctypes.byref(size))
        self.rank, self.size = rank.value, size.value
        call("comm_set_patience", handle, SLICE)

    @classmethod
    def from_env(cls):
        """The ranks of this step on this node, as srun, torchrun or mpirun numbered them."""
        return cls(joined("comm_from_env"))

    @classmethod
    def join(cls, segment, rank, timeout=0):
        """Returns when all ranks of `segment` have come; `timeout` in seconds, 0 for the default."""
        return cls(joined("comm_join", segment, _number(rank, "rank"), int(timeout * 1000)))

    def split(self, color, key=0):
        """A communicator of all ranks with this colour; None where `color` is None."""
        if color is not None and _number(color, "color") < 0:
            raise ValueError(f"color {color} is negative; None is for ranks that are in no group")
        self.barrier()  # where it waits, signals are handled; when all have come, the rest is quick
        made = make("comm_split", self._handle, -1 if color is None else color, _number(key, "key"))
        return type(self)(made) if made else None

    def set_timeout(self, seconds):
        if seconds <= 0:
            raise ValueError(f"a timeout of {seconds} s")
        call("comm_set_timeout", self._handle, max(1, int(seconds * 1000)))

    def allocate(self, nbytes):
        """Bytes inside the segment, as a writable memoryview: collectives on them copy nothing.

        They belong to the caller until `free` or the end of the communicator, after which others may get them. The memory stays
        mapped for as long as there is a view of it.
        """
        address = make("alloc", self._handle, nbytes)
        array = (ctypes.c_char * nbytes).from_address(address.value)
        array.mapping = Segment(make("comm_segment", self._handle))
        array.comm = self  # the end of the last reference to the communicator must not free what is in use
        return memoryview(array).cast("B")

    def free(self, memory):
        """Gives memory of `allocate` back; nothing may use it any more, no array made of it either."""
        call("free", self._handle, Buffer(memory, writable=True).address)

    def abort(self):
        """Ends the communicator for all members at once, as when this rank were gone."""
        call("comm_abort", self._handle)

    def close(self):
        if self._handle:
            call("comm_free", self._handle)
            self._handle = None
            self._in_use.clear()  # abandoned

    __del__ = close

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        """Where the body failed, the others are told at once: they would wait for this rank until their timeout."""
        if failure is not None and self._handle:
            with contextlib.suppress(Error):
                self.abort()
        self.close()

    def _run(self, name, blocking, buffers, *arguments):
        if not blocking:
            return self._start(name, buffers, *arguments)
        try:
            if not call(name, self._handle, *arguments):
                request = Request(self, buffers)
                request._number.value = LIBRARY.migshare_unfinished()
                request.wait()
        except (Error, ctypes.ArgumentError):
            raise
        except BaseException:
            self._give_up()
            raise
        return None

    def _start(self, name, buffers, *arguments):
        """The buffers are known to be in use before they are: a signal handler may raise between any two steps."""
        request = Request(self, buffers)
        try:
            call("i" + name, self._handle, *arguments, ctypes.byref(request._number))
        except (Error, ctypes.ArgumentError):
            request._forget()
            raise
        return request

    def _give_up(self):
        """A signal handler has raised while a call was under way: the others are told at once."""
        with contextlib.suppress(Error):
            self.abort()

    def barrier(self, blocking=True):
        return self._run("barrier", blocking, ())

    def broadcast(self, data, root=0, blocking=True):
        at = Buffer(data, writable=True)
        return self._run("broadcast", blocking, (at,), at.address, at.count, at.type, _number(root, "root"))

    def all_reduce(self, data, out=None, op="sum", blocking=True):
        """Combines `data` of all ranks into `out`, or in place."""
        send, recv = self._pair(data, out, 1, 1)
        return self._run(
            "all_reduce", blocking, (send, recv), send.address, recv.address, send.count, send.type, _op(op, send)
        )

    def reduce(self, data, out=None, op="sum", root=0, blocking=True):
        send, recv = self._pair(data, out, 1, 1)
        arguments = send.address, recv.address, send.count, send.type, _op(op, send), _number(root, "root")
        return self._run("reduce", blocking, (send, recv), *arguments)

    def reduce_scatter(self, data, out, op="sum", blocking=True):
        """Combines `data` (`size` blocks) and leaves block `rank` in `out`."""
        send, recv = self._pair(data, out, self.size, 1)
        arguments = send.address, recv.address, recv.count, recv.type, _op(op, recv)
        return self._run("reduce_scatter", blocking, (send, recv), *arguments)

    def all_gather(self, data, out, blocking=True):
        send, recv = self._pair(data, out, 1, self.size)
        return self._run("all_gather", blocking, (send, recv), send.address, recv.address, send.count, send.type)

    def gather(self, data, out=None, root=0, blocking=True):
        """`out` is needed at the root only."""
        send, recv = self._rooted(data, out, root, 1, self.size)
        return self._run("gather", blocking, (send, recv), send.address, recv and recv.address, send.count, send.type, _number(root, "root"))

    def scatter(self, data, out, root=0, blocking=True):
        """`data` is needed at the root only."""
        recv, send = self._rooted(out, data, root, 1, self.size, first_is_written=True)
        return self._run("scatter", blocking, (send, recv), send and send.address, recv.address, recv.count, recv.type, _number(root, "root"))

    def all_to_all(self, data, out, blocking=True):
        send, recv = self._pair(data, out, 1, 1)
        if send.count % (self.size * (2 if send.is_complex else 1)):
            raise ValueError("the buffer is not a block per rank")
        count = send.count // self.size
        return self._run("all_to_all", blocking, (send, recv), send.address, recv.address, count, send.type)

    def send(self, data, peer, tag=0):
        self._message("send", Buffer(data, writable=False), peer, tag).wait()

    def recv(self, out, peer, tag=0):
        """The number of bytes received."""
        return self._message("recv", Buffer(out, writable=True), peer, tag).wait()

    def isend(self, data, peer, tag=0):
        return self._message("send", Buffer(data, writable=False), peer, tag)

    def irecv(self, out, peer, tag=0):
        return self._message("recv", Buffer(out, writable=True), peer, tag)

    def _message(self, name, at, peer, tag):
        return self._start(name, (at,), at.address, at.nbytes, _number(peer, "peer"), tag)

    def _pair(self, data, out, sends, receives):
        """Source and target, whose lengths are to each other as these numbers of blocks."""
        send = Buffer(data, writable=out is None)
        recv = send if out is None else Buffer(out, writable=True)
        if (send.type, send.is_complex) != (recv.type, recv.is_complex):
            raise TypeError("the buffers have different element types")
        if send.count * receives != recv.count * sends:
            raise ValueError("the lengths of the buffers do not fit")
        return send, recv

    def _rooted(self, every, at_root, root, few, many, first_is_written=False):
        """A buffer that every rank has and one that only the root has."""
        if self.rank != root:
            return Buffer(every, writable=first_is_written), None
        if at_root is None:
            raise TypeError("the root needs a buffer with a block for each rank")
        pair = (at_root, every, many, few) if first_is_written else (every, at_root, few, many)
        first, second = self._pair(*pair)
        return (second, first) if first_is_written else (first, second)
