"""A `torch.distributed` backend named "migshare" for CPU tensors of ranks on one node.

Importing this module registers it. Collectives are complete when the call returns; the works that torch gets are finished
ones. Messages (`isend`, `irecv`, `batch_isend_irecv`) are only started: they move on within any call on the group, also in
`wait` and `is_completed` of another one, and `send` and `recv` wait for theirs.

A group's memory is found by its first rank: the step's segment, where the agent has one that no other group or program of
the step uses, otherwise a sealed one of its own. The others learn through torch's store which it is. That first group is
usually the world; groups that new_group makes have memory of their own.
"""

import datetime
import json
import os
import secrets
import warnings

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Work

from ._comm import Comm, Segment
from ._library import Error

try:  # newer torch has base classes made for Python
    from torch._C._distributed_c10d import Backend as _Base
except ImportError:
    _Base = dist.ProcessGroup

_OPS = {
    dist.ReduceOp.SUM: "sum",
    dist.ReduceOp.PRODUCT: "product",
    dist.ReduceOp.MIN: "min",
    dist.ReduceOp.MAX: "max",
}
if hasattr(dist.ReduceOp, "AVG"):
    _OPS[dist.ReduceOp.AVG] = "average"
#: "And" and "or"; the sum and the product of truth values are the same.
_OF_BOOL = {
    getattr(dist.ReduceOp, "BAND", None): "min",
    getattr(dist.ReduceOp, "BOR", None): "max",
    dist.ReduceOp.PRODUCT: "min",
    dist.ReduceOp.SUM: "max",
}


def _done(result):
    """A work that is finished. Made by torch, because it may outlive every Python reference to it."""
    future = torch.futures.Future()
    future.set_result(result)
    return torch._C._distributed_c10d._create_work_from_future(future)


class _Message(Work):
    """A started send or receive. torch may keep only its own half of this object: `pending` keeps the other one until the end."""

    def __init__(self, request, pending, finish, tensors):
        super().__init__()
        self._request, self._pending, self._finish, self._tensors = request, pending, finish, tensors
        self._error = None
        pending.add(self)

    def wait(self, timeout=None):
        """Waits for the end, as long as the group's timeout allows; torch's `timeout` is not looked at."""
        return self._end(self._request.wait)

    def synchronize(self):
        self.wait()

    def is_completed(self):
        try:
            return self._end(self._request.test)
        except Error:
            return self._error is not None

    def is_success(self):
        return self.is_completed() and self._error is None

    def exception(self):
        return self._error

    def result(self):
        self.wait()
        return self._tensors

    def _end(self, how):
        if self._error is not None:
            raise self._error
        if self._finish is None:
            return True
        try:
            if how() is False:
                return False
        except Error as error:
            if error.status != "BUSY":
                self._error = error
                self._pending.discard(self)
            raise
        finish, self._finish = self._finish, None
        finish()
        self._pending.discard(self)
        return True


def _op(opts, tensor):
    """The operator's name; `opts` holds a ReduceOp, or the enum inside one."""
    op = opts.reduceOp
    tables = (_OF_BOOL, _OPS) if tensor.dtype == torch.bool else (_OPS,)
    for known, name in ((known, name) for table in tables for known, name in table.items()):
        if known is not None and op == known:
            return name
    known = ("BAND", "BOR", "BXOR", "PREMUL_SUM")
    name = next((name for name in known if op == getattr(dist.ReduceOp, name, None)), str(op))
    raise ValueError(f"migshare has no operator {name} for {tensor.dtype}: it has {', '.join(_OPS.values())}, BAND and BOR for bool")


def _of_the_step(size):
    """The step's segment, if it has one that is free."""
    if "MIGSHARE_SEGMENT_SOCKET" not in os.environ:
        return None
    try:
        segment = Segment.from_env(size)
    except Error as error:
        warnings.warn(f"migshare uses memory of its own, because the step's segment cannot be had: {error}", stacklevel=2)
        return None
    return segment if segment.claim() else None


def _found(store, size):
    """The first rank's part: memory, and a note for the others where it is."""
    note = {"node": os.uname().nodename, "run": secrets.token_hex(16)}
    try:
        segment = _of_the_step(size)
        if segment is None:
            segment = Segment.create(size)
            note |= {"pid": os.getpid(), "fd": segment.fileno()}
    except Error as error:
        store.set("migshare", json.dumps(note | {"error": str(error)}))
        raise
    store.set("migshare", json.dumps(note))
    return segment, note


def _told(store, rank, size, timeout):
    """The other ranks' part: the memory that the first rank's note speaks of."""
    store.wait(["migshare"], datetime.timedelta(seconds=timeout))
    note, here = json.loads(store.get("migshare")), os.uname().nodename
    if note["node"] != here:
        raise RuntimeError(
            f"migshare serves the ranks of one node: rank 0 is on {note['node']}, rank {rank} on {here}; "
            'over several nodes use another backend, such as init_process_group("gloo")'
        )
    if "error" in note:
        raise RuntimeError(f"migshare: rank 0 has no memory to share: {note['error']}")
    segment = Segment.of_process(note["pid"], note["fd"], size) if "pid" in note else Segment.from_env(size)
    return segment, note


def _open(store, rank, size, timeout):
    """The group's communicator."""
    segment, note = _found(store, size) if rank == 0 else _told(store, rank, size, timeout)
    comm = Comm.join(segment, rank, timeout)
    # The note outlives its writer: memory that another run has taken since must not be mistaken for this run's.
    run = bytearray.fromhex(note["run"])
    comm.broadcast(run, root=0)
    if run.hex() != note["run"]:
        raise RuntimeError("migshare: the first rank of this group is gone, and another group has its memory")
    return comm


class ProcessGroupMigshare(_Base):
    """All operations of a process group on CPU tensors."""

    def __init__(self, store, rank, size, timeout):
        super().__init__(rank, size)
        self._comm = _open(store, rank, size, timeout.total_seconds())
        self._messages = set()

    def getBackendName(self):  # noqa: N802 - torch's name
        return "migshare"

    def name(self):
        return "migshare"

    def allreduce(self, tensors, opts=None):
        for tensor in tensors:
            op = _op(opts, tensor) if opts else "sum"
            self._in_place(tensor, lambda flat: self._comm.all_reduce(flat, op=op))
        return _done(tensors)

    def allreduce_coalesced(self, tensors, opts=None):
        return self.allreduce(tensors, opts)

    def broadcast(self, tensors, opts):
        for tensor in tensors:
            self._in_place(tensor, lambda flat: self._comm.broadcast(flat, opts.rootRank))
        return _done(tensors)

    def reduce(self, tensors, opts):
        (tensor,) = tensors
        op = _op(opts, tensor)
        out = torch.empty_like(tensor, memory_format=torch.contiguous_format)
        self._comm.reduce(tensor.contiguous(), out, op, opts.rootRank)
        if self._comm.rank == opts.rootRank:
            tensor.copy_(out)
        return _done(tensors)

    def allgather(self, outputs, inputs, opts=None):
        for places, tensor in zip(outputs, inputs):
            flat = tensor.contiguous().view(-1)
            every = torch.empty(len(places) * flat.numel(), dtype=tensor.dtype)
            self._comm.all_gather(flat, every)
            self._deal(every, places)
        return _done(outputs)

    def _allgather_base(self, output, tensor, opts=None):
        self._into(output, lambda flat: self._comm.all_gather(tensor.contiguous(), flat))
        return _done([output])

    def gather(self, outputs, inputs, opts):
        (tensor,) = inputs
        every = None
        if self._comm.rank == opts.rootRank:
            every = torch.empty(self._comm.size * tensor.numel(), dtype=tensor.dtype)
        self._comm.gather(tensor.contiguous(), every, opts.rootRank)
        if every is not None:
            self._deal(every, outputs[0])
        return _done(outputs)

    def scatter(self, outputs, inputs, opts):
        (output,) = outputs
        every = None
        if self._comm.rank == opts.rootRank:
            every = torch.cat([tensor.reshape(-1) for tensor in inputs[0]])
        self._into(output, lambda flat: self._comm.scatter(every, flat, opts.rootRank))
        return _done(outputs)

    def reduce_scatter(self, outputs, inputs, opts):
        for output, parts in zip(outputs, inputs):
            every = torch.cat([part.reshape(-1) for part in parts])
            op = _op(opts, output)
            self._into(output, lambda flat: self._comm.reduce_scatter(every, flat, op))
        return _done(outputs)

    def _reduce_scatter_base(self, output, tensor, opts):
        op = _op(opts, output)
        self._into(output, lambda flat: self._comm.reduce_scatter(tensor.contiguous(), flat, op))
        return _done([output])

    def alltoall_base(self, output, tensor, output_sizes, input_sizes, opts=None):
        if output_sizes or input_sizes:
            self._uneven(output, tensor, output_sizes, input_sizes)
        else:
            self._into(output, lambda flat: self._comm.all_to_all(tensor.contiguous(), flat))
        return _done([output])

    def alltoall(self, outputs, inputs, opts=None):
        self._exchange(outputs, inputs)
        return _done(outputs)

    def _uneven(self, output, tensor, output_sizes, input_sizes):
        size = self._comm.size
        cut = lambda whole, sizes: whole.split(sizes or whole.shape[0] // size)  # noqa: E731
        self._exchange(cut(output, output_sizes), cut(tensor, input_sizes))

    def _exchange(self, outputs, inputs):
        """Pairwise messages: the blocks may differ in length."""
        rank, requests, places = self._comm.rank, [], []
        for peer, (output, tensor) in enumerate(zip(outputs, inputs)):
            if peer == rank:
                output.copy_(tensor)
                continue
            place = torch.empty(output.shape, dtype=output.dtype)
            requests += [self._comm.irecv(place, peer), self._comm.isend(tensor.contiguous(), peer)]
            places.append((output, place))
        for request in requests:
            request.wait()
        for output, place in places:
            output.copy_(place)

    def send(self, tensors, peer, tag=0):
        (tensor,) = tensors
        request = self._comm.isend(tensor.contiguous(), peer, tag)
        return _Message(request, self._messages, lambda: None, tensors)

    def recv(self, tensors, peer, tag=0):
        (tensor,) = tensors
        flat = tensor if tensor.is_contiguous() else torch.empty(tensor.shape, dtype=tensor.dtype)
        finish = (lambda: None) if flat is tensor else (lambda: tensor.copy_(flat))
        return _Message(self._comm.irecv(flat, peer, tag), self._messages, finish, tensors)

    def recv_anysource(self, tensors, tag=0):
        raise RuntimeError("migshare receives from a rank that is named: recv(tensor, src=...)")

    def barrier(self, opts=None):
        self._comm.barrier()
        return _done([])

    @staticmethod
    def _in_place(tensor, run):
        if tensor.is_contiguous():
            run(tensor)
        else:
            flat = tensor.contiguous()
            run(flat)
            tensor.copy_(flat)

    @staticmethod
    def _into(tensor, run):
        flat = tensor if tensor.is_contiguous() else torch.empty(tensor.shape, dtype=tensor.dtype)
        run(flat)
        if flat is not tensor:
            tensor.copy_(flat)

    @staticmethod
    def _deal(every, places):
        for place, part in zip(places, every.chunk(len(places))):
            place.copy_(part.view(place.shape))


def _create(store, rank, size, timeout):
    return ProcessGroupMigshare(store, rank, size, timeout)


try:
    dist.Backend.register_backend("migshare", _create, devices=["cpu"])
except TypeError:  # before torch 2.0 a backend had no devices
    dist.Backend.register_backend("migshare", _create)

__all__ = ["Error", "ProcessGroupMigshare"]
