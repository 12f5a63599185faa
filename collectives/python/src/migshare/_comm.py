"""Segments, communicators and requests."""

import contextlib
import ctypes
import os

from ._buffer import Buffer
from ._library import LIBRARY, Error, call, make

__all__ = ["Comm", "Error", "Request", "Segment"]

OPS = {"sum": 0, "product": 1, "min": 2, "max": 3, "average": 4}


def _op(op, buffer):
    if op not in OPS:
        raise ValueError(f"op is one of {', '.join(OPS)}")
    if buffer.is_bool and op not in ("min", "max"):
        raise TypeError(f'bool has no {op}: op="max" is "or", op="min" is "and"')
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


class Request:
    """A started operation. Its buffers are kept alive by the communicator, also where nobody keeps the request."""

    def __init__(self, comm, number, *buffers):
        self._comm, self._number, self._received, self._error = comm, number, None, None
        comm._in_use[number] = buffers

    def test(self):
        """Whether the operation is done."""
        return self._end("test")

    def wait(self):
        """Waits for the end; the number of bytes received, 0 for anything but a receive."""
        self._end("wait")
        return self._received

    def _end(self, how):
        if self._error is not None:
            raise self._error
        if self._number is None:
            return True
        received = ctypes.c_size_t()
        try:
            done = call(how, self._comm._handle, self._number, ctypes.byref(received))
        except Error as error:
            if error.status != "BUSY":  # another thread is in the communicator: the operation goes on
                self._error = error
                self._forget()
            raise
        if done:
            self._received = received.value
            self._forget()
        return done

    def _forget(self):
        self._comm._in_use.pop(self._number, None)
        self._number = None


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

    @classmethod
    def from_env(cls):
        """The ranks of this step on this node, as srun, torchrun or mpirun numbered them."""
        return cls(make("comm_from_env"))

    @classmethod
    def join(cls, segment, rank, timeout=0):
        """Returns when all ranks of `segment` have come; `timeout` in seconds, 0 for the default."""
        return cls(make("comm_join", segment._handle, _number(rank, "rank"), int(timeout * 1000)))

    def split(self, color, key=0):
        """A communicator of all ranks with this colour; None where `color` is None."""
        if color is not None and _number(color, "color") < 0:
            raise ValueError(f"color {color} is negative; None is for ranks that are in no group")
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
        if blocking:
            call(name, self._handle, *arguments)
            return None
        number = ctypes.c_uint64()
        call("i" + name, self._handle, *arguments, ctypes.byref(number))
        return Request(self, number.value, *buffers)

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
        if send.count % self.size:
            raise ValueError("the buffer is not a block per rank")
        count = send.count // self.size
        return self._run("all_to_all", blocking, (send, recv), send.address, recv.address, count, send.type)

    def send(self, data, peer, tag=0):
        self.isend(data, peer, tag).wait()

    def recv(self, out, peer, tag=0):
        """The number of bytes received."""
        return self.irecv(out, peer, tag).wait()

    def isend(self, data, peer, tag=0):
        return self._message("isend", Buffer(data, writable=False), peer, tag)

    def irecv(self, out, peer, tag=0):
        return self._message("irecv", Buffer(out, writable=True), peer, tag)

    def _message(self, name, at, peer, tag):
        number = ctypes.c_uint64()
        call(name, self._handle, at.address, at.nbytes, _number(peer, "peer"), tag, ctypes.byref(number))
        return Request(self, number.value, at)

    def _pair(self, data, out, sends, receives):
        """Source and target, whose lengths are to each other as these numbers of blocks."""
        send = Buffer(data, writable=out is None)
        recv = send if out is None else Buffer(out, writable=True)
        if send.type != recv.type:
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
