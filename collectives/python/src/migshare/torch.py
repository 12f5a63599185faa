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

from . import _reduction
from ._buffer import TYPES
from ._comm import Comm, Segment
from ._library import Error

try:  # newer torch has base classes made for Python
    from torch._C._distributed_c10d import Backend as _Base
except ImportError:
    _Base = dist.ProcessGroup

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
        self._end(self._request.wait)

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
        self._end(self._request.wait)
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


class _No:
    """False, for torch's Python code which reads it as a property and for its C++ code which calls it."""

    def __bool__(self):
        return False

    __call__ = __bool__


def _flat(tensor):
    """The elements in one dimension; the tensor's own memory where that is possible."""
    return tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1)


def _moved(flat):
    """The same memory, of a type that the library moves: bytes where it is none of its own."""
    name = str(flat.dtype).removeprefix("torch.")
    return flat if name in TYPES or flat.is_complex() else flat.view(torch.uint8)


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

    #: Messages of a batch are started one by one. Torch 2.15 would look for its own property through this class again and again.
    supports_coalescing = _No()

    def __init__(self, store, rank, size, timeout):
        super().__init__(rank, size)
        self._comm = _open(store, rank, size, timeout.total_seconds())
        self._messages = set()
        #: For blocks of different lengths, from the first of them on.
        self._exchanges = None

    def getBackendName(self):  # noqa: N802 - torch's name
        return "migshare"

    name = getBackendName

    def allreduce(self, tensors, opts=None):
        for tensor in tensors:
            op = _reduction.operator(opts, tensor)
            if tensor.layout == torch.strided:
                self._in_place(tensor, lambda flat: _reduction.all_reduce(self._comm, flat, op))
            else:
                _reduction.all_reduce_sparse(self._comm, tensor, op)
        return _done(tensors)

    allreduce_coalesced = allreduce

    def broadcast(self, tensors, opts):
        for tensor in tensors:
            self._in_place(tensor, lambda flat: self._comm.broadcast(_moved(flat), opts.rootRank))
        return _done(tensors)

    def reduce(self, tensors, opts):
        (tensor,) = tensors
        out = _reduction.reduce(self._comm, _flat(tensor), _reduction.operator(opts, tensor), opts.rootRank)
        if self._comm.rank == opts.rootRank:
            tensor.detach().copy_(out.view(tensor.shape))
        return _done(tensors)

    def allgather(self, outputs, inputs, opts=None):
        for places, tensor in zip(outputs, inputs):
            flat = _flat(tensor)
            every = torch.empty(len(places) * flat.numel(), dtype=tensor.dtype)
            self._comm.all_gather(_moved(flat), _moved(every))
            self._deal(every, places)
        return _done(outputs)

    def allgather_coalesced(self, outputs, inputs, opts=None):
        """`outputs` has a list like `inputs` for each rank."""
        for index, tensor in enumerate(inputs):
            self.allgather([[places[index] for places in outputs]], [tensor])
        return _done(outputs)

    def _allgather_base(self, output, tensor, opts=None):
        self._into(output, lambda flat: self._comm.all_gather(_moved(_flat(tensor)), _moved(flat)))
        return _done([output])

    def allgather_into_tensor_coalesced(self, outputs, inputs, opts=None):
        for output, tensor in zip(outputs, inputs):
            self._allgather_base(output, tensor)
        return _done(outputs)

    def gather(self, outputs, inputs, opts):
        (tensor,) = inputs
        every = None
        if self._comm.rank == opts.rootRank:
            every = torch.empty(self._comm.size * tensor.numel(), dtype=tensor.dtype)
        self._comm.gather(_moved(_flat(tensor)), every if every is None else _moved(every), opts.rootRank)
        if every is not None:
            self._deal(every, outputs[0])
        return _done(outputs)

    def scatter(self, outputs, inputs, opts):
        (output,) = outputs
        every = None
        if self._comm.rank == opts.rootRank:
            every = _moved(torch.cat([_flat(tensor) for tensor in inputs[0]]))
        self._into(output, lambda flat: self._comm.scatter(every, _moved(flat), opts.rootRank))
        return _done(outputs)

    def reduce_scatter(self, outputs, inputs, opts):
        for output, parts in zip(outputs, inputs):
            self._scatter_reduced(output, torch.cat([_flat(part) for part in parts]), opts)
        return _done(outputs)

    def _reduce_scatter_base(self, output, tensor, opts):
        self._scatter_reduced(output, _flat(tensor), opts)
        return _done([output])

    def reduce_scatter_tensor_coalesced(self, outputs, inputs, opts):
        for output, tensor in zip(outputs, inputs):
            self._scatter_reduced(output, _flat(tensor), opts)
        return _done(outputs)

    def _scatter_reduced(self, output, whole, opts):
        op = _reduction.operator(opts, output)
        self._into(output, lambda flat: _reduction.reduce_scatter(self._comm, whole, flat, op))

    def alltoall_base(self, output, tensor, output_sizes, input_sizes, opts=None):
        if output_sizes or input_sizes:
            cut = lambda whole, sizes: whole.split(sizes or whole.shape[0] // self._comm.size)  # noqa: E731
            self._exchange(cut(output, output_sizes), cut(tensor, input_sizes))
        else:
            self._into(output, lambda flat: self._comm.all_to_all(_moved(_flat(tensor)), _moved(flat)))
        return _done([output])

    def alltoall(self, outputs, inputs, opts=None):
        self._exchange(outputs, inputs)
        return _done(outputs)

    def _exchange(self, outputs, inputs):
        """Pairwise messages, as the blocks may differ in length. On a communicator of their own: they must not meet the user's."""
        if self._exchanges is None:
            self._exchanges = self._comm.split(0)
        rank, requests, places = self._comm.rank, [], []
        for peer, (output, tensor) in enumerate(zip(outputs, inputs)):
            if peer == rank:
                output.detach().copy_(tensor)
                continue
            place = torch.empty(output.numel(), dtype=output.dtype)
            requests += [self._exchanges.irecv(_moved(place), peer), self._exchanges.isend(_moved(_flat(tensor)), peer)]
            places.append((output, place))
        for request in requests:
            request.wait()
        for output, place in places:
            output.detach().copy_(place.view(output.shape))

    # The names that torch 2.15 has for them.
    all_gather_single = _allgather_base
    all_gather_single_coalesced = allgather_into_tensor_coalesced
    reduce_scatter_single = _reduce_scatter_base
    reduce_scatter_single_coalesced = reduce_scatter_tensor_coalesced
    all_to_all_single = alltoall_base

    def send(self, tensors, peer, tag=0):
        (tensor,) = tensors
        request = self._comm.isend(_moved(_flat(tensor)), peer, tag)
        return _Message(request, self._messages, lambda: None, tensors)

    def recv(self, tensors, peer, tag=0):
        (tensor,) = tensors
        flat, finish = self._place(tensor)
        return _Message(self._comm.irecv(_moved(flat), peer, tag), self._messages, finish, tensors)

    def recv_anysource(self, tensors, tag=0):
        raise RuntimeError("migshare receives from a rank that is named: recv(tensor, src=...)")

    def barrier(self, opts=None):
        self._comm.barrier()
        return _done([])

    @staticmethod
    def _is_plain(tensor):
        """Whether the tensor's memory holds its elements one after the other, as they are."""
        return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()

    def _in_place(self, tensor, run):
        flat = _flat(tensor)
        run(flat)
        if not self._is_plain(tensor):
            tensor.detach().copy_(flat.view(tensor.shape))

    def _place(self, tensor):
        """Memory for the tensor's elements in one dimension, and what brings them from there to the tensor."""
        if self._is_plain(tensor):
            return _flat(tensor), lambda: None
        flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
        return flat, lambda: tensor.detach().copy_(flat.view(tensor.shape))

    def _into(self, tensor, run):
        flat, finish = self._place(tensor)
        run(flat)
        finish()

    @staticmethod
    def _deal(every, places):
        for place, part in zip(places, every.chunk(len(places))):
            place.detach().copy_(part.view(place.shape))


def _create(store, rank, size, timeout):
    return ProcessGroupMigshare(store, rank, size, timeout)


try:
    dist.Backend.register_backend("migshare", _create, devices=["cpu"])
except TypeError:  # before torch 2.0 a backend had no devices
    dist.Backend.register_backend("migshare", _create)

__all__ = ["Error", "ProcessGroupMigshare"]
