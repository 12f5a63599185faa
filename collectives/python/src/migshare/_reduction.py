"""Reductions of torch's tensors: which operators an element type has, and those that the library has no kernel for."""

import functools

import torch
import torch.distributed as dist

#: Elements that are gathered from all ranks at once where each rank combines them by itself.
_PIECE = 1 << 20


_COMPLEX = {"SUM": "sum", "AVG": "average"}
_REAL = _COMPLEX | {"PRODUCT": "product", "MIN": "min", "MAX": "max"}
_INTEGER = _REAL | {"BAND": torch.bitwise_and, "BOR": torch.bitwise_or, "BXOR": torch.bitwise_xor}
#: "And" and "or"; the sum and the product of truth values are the same.
_BOOL = {"SUM": "max", "PRODUCT": "min", "MIN": "min", "MAX": "max", "BAND": "min", "BOR": "max", "BXOR": torch.bitwise_xor}
#: Torch's operators, as far as this version has them.
_OPERATORS = {name: getattr(dist.ReduceOp, name) for name in [*_INTEGER, "PREMUL_SUM"] if hasattr(dist.ReduceOp, name)}


def operator(opts, tensor):
    """The library's name of the operator in torch's options, or a function of two tensors."""
    op, dtype = opts.reduceOp if opts else dist.ReduceOp.SUM, tensor.dtype
    table = _REAL if dtype.is_floating_point else _COMPLEX if dtype.is_complex else _BOOL if dtype == torch.bool else _INTEGER
    name = next((name for name, known in _OPERATORS.items() if op == known), str(op))
    if name not in table:
        has = ", ".join(name for name in table if name in _OPERATORS)
        raise ValueError(f"migshare has no operator {name} for {dtype}: it has {has}")
    return table[name]


def all_reduce(comm, flat, op):
    """Combines a contiguous tensor of one dimension in place."""
    if not callable(op):
        comm.all_reduce(flat, op=op)
        return
    for piece in flat.split(_PIECE):
        every = torch.empty((comm.size, piece.numel()), dtype=piece.dtype)
        comm.all_gather(piece, every)
        piece.copy_(functools.reduce(op, every))


def reduce(comm, flat, op, root):
    """The combined tensor, at the root."""
    if callable(op):
        out = flat.clone()
        all_reduce(comm, out, op)
    else:
        out = torch.empty_like(flat)
        comm.reduce(flat, out, op, root)
    return out


def reduce_scatter(comm, whole, part, op):
    """Combines `whole`, a block for each rank, and leaves this rank's block in `part`."""
    if not callable(op):
        comm.reduce_scatter(whole, part, op)
        return
    every = torch.empty_like(whole)
    comm.all_to_all(whole, every)
    part.copy_(functools.reduce(op, every.view(comm.size, -1)))


def all_reduce_sparse(comm, tensor, op):
    """Adds sparse tensors of the same shape in place: all ranks get the entries of all."""
    if op != "sum" or tensor.layout != torch.sparse_coo:
        raise ValueError(f"migshare adds sparse tensors of the layout torch.sparse_coo, and has no {op} for {tensor.layout}")
    own = tensor.detach().coalesce()
    counts = torch.empty(comm.size, dtype=torch.int64)
    comm.all_gather(torch.tensor([own._nnz()]), counts)
    counts = counts.tolist()
    # Collectives are of equal lengths.
    parts = [_gathered(comm, own.indices().t(), max(counts)), _gathered(comm, own.values(), max(counts))]
    places, values = (torch.cat([part[:count] for part, count in zip(every, counts)]) for every in parts)
    with torch.no_grad():
        tensor.copy_(torch.sparse_coo_tensor(places.t(), values, tensor.shape).coalesce())


def _gathered(comm, rows, count):
    """The rows of all ranks, of which each has at most `count`."""
    own = torch.zeros((count, *rows.shape[1:]), dtype=rows.dtype)
    own[: len(rows)] = rows
    every = torch.empty((comm.size, *own.shape), dtype=rows.dtype)
    comm.all_gather(own, every)
    return every
