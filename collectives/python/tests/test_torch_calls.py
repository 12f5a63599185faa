"""Every call of torch.distributed with every type and operator, against Gloo: where Gloo has an answer, it is ours, too.

Run with Debian's python3-torch or a newer torch.
"""

import unittest

import torch
import torch.distributed as dist
from test_torch import run

import migshare.torch  # noqa: F401 - registers the backend

TYPES = [
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip
OPERATORS = [name for name in ("SUM", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR", "AVG") if hasattr(dist.ReduceOp, name)]
#: What Gloo refuses and we have, in words of the test.
REFUSED = "refused"


def numbers(rank, count, kind):
    """Small enough for products of three in a byte."""
    own = (torch.arange(count) * 7 + rank * 3) % 5
    return own.to(kind) * 1j + own.to(kind) if kind.is_complex else own.to(kind)


def empty(count, kind, fill=0):
    return torch.full((count,), fill).to(kind)


def all_reduce(rank, size, kind, op):
    own = numbers(rank, 100, kind)
    dist.all_reduce(own, op=op)
    return [own]


def all_reduce_turned(rank, size, kind, op):
    own = numbers(rank, 60, kind).view(6, 10).t()
    dist.all_reduce(own, op=op)
    return [own]


def all_reduce_scalar(rank, size, kind, op):
    own = numbers(rank, 1, kind)[0]
    dist.all_reduce(own, op=op)
    return [own]


def all_reduce_coalesced(rank, size, kind, op):
    own = [numbers(rank, 10, kind), numbers(rank, 3, kind)]
    dist.all_reduce_coalesced(own, op=op)
    return own


def reduce(rank, size, kind, op):
    own = numbers(rank, 40, kind)
    dist.reduce(own, size - 1, op=op)
    return [own] if rank == size - 1 else []


def reduce_scatter(rank, size, kind, op):
    out = empty(10, kind)
    dist.reduce_scatter(out, [numbers(rank + part, 10, kind) for part in range(size)], op=op)
    return [out]


def reduce_scatter_tensor(rank, size, kind, op):
    out = empty(10, kind)
    call = getattr(dist, "reduce_scatter_tensor", None) or dist._reduce_scatter_base
    call(out, numbers(rank, 10 * size, kind), op=op)
    return [out]


def broadcast(rank, size, kind):
    own = numbers(rank, 50, kind)
    dist.broadcast(own, size - 1)
    return [own]


def all_gather(rank, size, kind):
    parts = [empty(50, kind) for _ in range(size)]
    dist.all_gather(parts, numbers(rank, 50, kind))
    return parts


def all_gather_turned(rank, size, kind):
    parts = [empty(50, kind).view(10, 5).t() for _ in range(size)]
    dist.all_gather(parts, numbers(rank, 50, kind).view(10, 5).t())
    return parts


def all_gather_into_tensor(rank, size, kind):
    every = empty(50 * size, kind)
    call = getattr(dist, "all_gather_into_tensor", None) or dist._all_gather_base
    call(every, numbers(rank, 50, kind))
    return [every]


def all_gather_coalesced(rank, size, kind):
    own = [numbers(rank, 6, kind), numbers(rank, 4, kind).view(2, 2)]
    places = [[torch.zeros_like(tensor) for tensor in own] for _ in range(size)]
    dist.all_gather_coalesced(places, own)
    return [place for list_ in places for place in list_]


def gather(rank, size, kind):
    parts = [empty(30, kind) for _ in range(size)] if rank == 0 else None
    dist.gather(numbers(rank, 30, kind), parts, 0)
    return parts or []


def scatter(rank, size, kind):
    out = empty(30, kind)
    dist.scatter(out, [numbers(part, 30, kind) for part in range(size)] if rank == 1 else None, 1)
    return [out]


def all_to_all(rank, size, kind):
    out = [empty(part + 1, kind) for part in range(size)]
    dist.all_to_all(out, [numbers(rank + part, rank + 1, kind) for part in range(size)])
    return out


def all_to_all_single(rank, size, kind):
    out = empty(4 * size, kind)
    dist.all_to_all_single(out, numbers(rank, 4 * size, kind))
    return [out]


def all_to_all_single_uneven(rank, size, kind):
    """Rank r sends r + p rows to rank p, and no row from 0 to 0."""
    sends, receives = [rank + part for part in range(size)], [part + rank for part in range(size)]
    out = empty(sum(receives) * 3, kind).view(-1, 3)
    dist.all_to_all_single(out, numbers(rank, sum(sends) * 3, kind).view(-1, 3), receives, sends)
    return [out]


def messages(rank, size, kind):
    """To the next, and from the one before."""
    out, into = numbers(rank, 70, kind), empty(70, kind)
    works = dist.batch_isend_irecv(
        [dist.P2POp(dist.isend, out, (rank + 1) % size), dist.P2POp(dist.irecv, into, (rank + size - 1) % size)]
    )
    for work in works:
        work.wait()
    return [into]


def asynchronous(rank, size, kind):
    own = [numbers(rank, 20, kind) for _ in range(2)]
    works = [dist.all_reduce(own[0], async_op=True), dist.broadcast(own[1], 0, async_op=True)]
    for work in works:
        work.wait()
    return own


def subgroup(rank, size, kind):
    group = dist.new_group([0, size - 1])
    own = numbers(rank, 20, kind)
    if rank in (0, size - 1):
        dist.all_reduce(own, group=group)
    return [own]


def sparse(rank, size, kind):
    """Rank r has r + 1 entries, of which two ranks share some."""
    places = torch.tensor([[place, (place * 2) % 5] for place in range(rank + 1)]).t()
    own = torch.sparse_coo_tensor(places, numbers(rank, (rank + 1) * 4, kind).view(-1, 4), (8, 5, 4))
    dist.all_reduce(own)
    return [own.to_dense()]


def objects(rank, size, kind):
    every, told, part = [None] * size, [rank if rank == 0 else None, "x"], [None]
    dist.all_gather_object(every, {"rank": rank, "kind": str(kind)})
    dist.broadcast_object_list(told, 0)
    gathered = [None] * size if rank == 0 else None
    dist.gather_object((rank,), gathered, 0)
    dist.scatter_object_list(part, [[r] for r in range(size)] if rank == 0 else None, 0)
    text = repr((every, told, gathered, part)).encode()
    return [torch.tensor(list(text), dtype=torch.uint8)]


REDUCTIONS = [all_reduce, all_reduce_turned, all_reduce_scalar, all_reduce_coalesced, reduce, reduce_scatter, reduce_scatter_tensor]
MOVES = [
    broadcast, all_gather, all_gather_turned, all_gather_into_tensor, all_gather_coalesced, gather, scatter, all_to_all,
    all_to_all_single, all_to_all_single_uneven, messages, asynchronous, subgroup, sparse, objects,
]  # fmt: skip


def answer(call, *arguments):
    try:
        return call(*arguments)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        # A refusal that ends the group would spoil all answers after it.
        return f"{REFUSED}: {error}"


def table(rank, size):
    answers = {}
    for kind in TYPES:
        for call in MOVES:
            answers[call.__name__, kind] = answer(call, rank, size, kind)
        for call in REDUCTIONS:
            for op in OPERATORS:
                answers[call.__name__, kind, op] = answer(call, rank, size, kind, getattr(dist.ReduceOp, op))
    dist.barrier()
    return answers


def premultiplied(rank, size):
    """Only NCCL has it."""
    op = dist._make_nccl_premul_sum(2.0)
    for call in (dist.all_reduce, lambda data, op: dist.reduce(data, 0, op=op)):
        try:
            call(torch.ones(3), op=op)
        except (RuntimeError, ValueError) as error:
            assert "PREMUL_SUM" in str(error), error
        else:
            raise AssertionError("not refused")
    dist.barrier()
    return []


def messages_among_blocks(rank, size):
    """A message that is under way is not taken for a block of an exchange with uneven blocks."""
    peer, out = 1 - rank, torch.zeros(3)
    sent = dist.isend(torch.full((2,), 9.0), peer)
    dist.all_to_all_single(out, torch.full((3,), rank + 1.0), [1, 2] if rank == 0 else [2, 1], [1, 2] if rank == 0 else [2, 1])
    place = torch.zeros(2)
    dist.recv(place, peer)
    sent.wait()
    return [out, place]


class Calls(unittest.TestCase):
    def compare(self, size):
        (_, gloo), (_, ours) = outcomes = [run(backend, size, table) for backend in ("gloo", "migshare")]
        for codes, _ in outcomes:
            self.assertEqual(codes, [0] * size)
        had = 0
        for rank in range(size):
            for key, theirs in gloo[rank].items():
                found = ours[rank][key]
                if isinstance(theirs, str):
                    continue
                had += 1
                with self.subTest(key=key, rank=rank):
                    self.assertNotIsInstance(found, str, found)
                    self.assertEqual(len(theirs), len(found))
                    for a, b in zip(theirs, found):
                        # A quotient may be a product with the inverse there.
                        same = torch.allclose if "AVG" in key and not a.dtype == torch.bool else self.equal
                        self.assertTrue(a.dtype == b.dtype and same(a, b), (a, b))
        self.assertGreater(had, 100)

    @staticmethod
    def equal(a, b):
        # Gloo adds truth values as bytes: what is not 0 is true.
        return torch.equal(a.to(torch.uint8) != 0, b.to(torch.uint8) != 0) if a.dtype == torch.bool else torch.equal(a, b)

    def test_two_ranks_get_what_gloo_gives(self):
        self.compare(2)

    def test_three_ranks_get_what_gloo_gives(self):
        self.compare(3)

    def test_operators_that_a_type_has_not_are_refused_in_words(self):
        _, (found, *_) = run("migshare", 2, table)
        for kind, op, word in ((torch.float32, "BAND", "BAND"), (torch.complex64, "MAX", "MAX"), (torch.complex64, "PRODUCT", "PRODUCT")):
            told = found["all_reduce", kind, op]
            # Torch refuses some before they come to a backend.
            self.assertTrue(isinstance(told, str) and (word in told or "complex" in told), told)

    @unittest.skipUnless(hasattr(dist, "_make_nccl_premul_sum"), "this torch has no such operator")
    def test_what_only_nccl_has_is_refused_in_words(self):
        self.assertEqual(run("migshare", 2, premultiplied)[0], [0, 0])

    def test_messages_and_uneven_blocks_do_not_meet(self):
        codes, found = run("migshare", 2, messages_among_blocks)
        self.assertEqual(codes, [0, 0])
        self.assertEqual([[t.tolist() for t in tensors] for tensors in found], [[[1, 2, 2], [9, 9]], [[1, 1, 2], [9, 9]]])


if __name__ == "__main__":
    unittest.main()
