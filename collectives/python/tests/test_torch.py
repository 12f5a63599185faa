"""The torch.distributed backend, end to end, against Gloo. Run with Debian's python3-torch or a newer torch."""

import datetime
import os
import signal
import tempfile
import unittest

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import migshare.torch  # noqa: F401 - registers the backend

#: Newer torch shows only its own half of a Python backend's works, which knows no end but that of `wait`.
ENDS_ARE_SEEN = not hasattr(dist, "all_gather_single")
torch.set_num_threads(1)  # forked children have not the threads that their parent made


def rank_main(rank, backend, size, folder, body):
    store = dist.FileStore(os.path.join(folder, backend), size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=datetime.timedelta(seconds=60))
    result = body(rank, size)
    torch.save(result, os.path.join(folder, f"{backend}.{rank}"))
    dist.barrier()
    dist.destroy_process_group()


def run(backend, size, body):
    with tempfile.TemporaryDirectory() as folder:
        context = mp.get_context("fork")
        ranks = [context.Process(target=rank_main, args=(r, backend, size, folder, body)) for r in range(size)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(180)
        codes = [process.exitcode for process in ranks]
        found = [os.path.join(folder, f"{backend}.{rank}") for rank in range(size)]
        return codes, [torch.load(path) for path in found if os.path.exists(path)]


def every_call(rank, size):
    results = []
    for kind in (torch.float32, torch.float64, torch.int64, torch.uint8):
        own = (torch.arange(5000) % 7 + rank).to(kind)
        summed = own.clone()
        dist.all_reduce(summed)
        largest = own.clone().view(50, 100).t()
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        parts = [torch.zeros_like(own) for _ in range(size)]
        dist.all_gather(parts, own)
        from_one = own.clone()
        dist.broadcast(from_one, 1)
        root = own.clone()
        dist.reduce(root, 0)
        gathered = [torch.zeros_like(own) for _ in range(size)] if rank == 0 else None
        dist.gather(own, gathered, 0)
        scattered = torch.zeros_like(own)
        dist.scatter(scattered, [own + r for r in range(size)] if rank == 0 else None, 0)
        results += [summed, largest, *parts, from_one, scattered, *(gathered or []), *([root] if rank == 0 else [])]
    if rank == 0:
        dist.send(torch.arange(100_000), 1)
    elif rank == 1:
        got = torch.zeros(100_000, dtype=torch.int64)
        dist.recv(got, 0)
        results.append(got)
    group = dist.new_group([0, 1])
    if rank < 2:
        pair = torch.ones(10) * rank
        dist.all_reduce(pair, group=group)
        results.append(pair)
    return results


def messages(rank, size):
    """Every order of starting and waiting that does not wait for itself."""
    peer, results = 1 - rank, []
    for receive_first in (True, False):
        for count in (4, 100_000):
            got, own = torch.zeros(count, 2), torch.arange(2 * count).view(count, 2) * 1.0 + rank
            calls = [lambda: dist.irecv(got, peer), lambda: dist.isend(own, peer)]
            works = [call() for call in (calls if receive_first else reversed(calls))]
            for work in works if count == 4 else reversed(works):
                work.wait()
                assert work.is_completed() or not ENDS_ARE_SEEN
            results.append(got)
    got = [torch.zeros(1000), torch.zeros(7)]
    operations = [dist.P2POp(dist.irecv, place, peer) for place in got]
    operations += [dist.P2POp(dist.isend, place + rank, peer) for place in got]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    before = dist.irecv(got[0], peer)
    total = torch.ones(10)
    dist.all_reduce(total)
    dist.send(torch.full((1000,), rank + 5.0), peer)
    before.wait()
    return [*results, *got, total]


def more_calls(rank, size):
    """What every_call leaves out."""
    results = []
    for kind in (torch.float16, torch.int8, torch.int32):
        data = (torch.arange(300) % 3 + rank).to(kind)
        dist.all_reduce(data)
        results.append(data)
    turned = torch.zeros(2 * size)
    dist.all_to_all_single(turned, torch.arange(2.0 * size) + 10 * rank)
    objects = [None] * size
    dist.all_gather_object(objects, {"rank": rank})
    assert objects == [{"rank": r} for r in range(size)]
    named = [{"a": 1} if rank == 0 else None]
    dist.broadcast_object_list(named, 0)
    assert named == [{"a": 1}]
    nothing = torch.zeros(0)
    dist.all_reduce(nothing)
    return [*results, turned, nothing]


def not_in_gloo(rank, size):
    out = torch.zeros(3)
    dist.reduce_scatter(out, [torch.ones(3) + r for r in range(size)])
    assert (out == size * (rank + 1)).all()
    every = torch.zeros(size, 5)
    dist._all_gather_base(every, torch.ones(5) * rank)
    assert (every[1] == 1).all() and (every[0] == 0).all()
    for kind in (torch.bfloat16, torch.int16):
        data = torch.full((300,), rank + 1).to(kind)
        dist.all_reduce(data)
        assert (data == 3).all()
    either = torch.tensor([rank == 0, False])
    dist.all_reduce(either)
    assert either.tolist() == [True, False]
    turned = torch.zeros(3, 1000).t()  # not contiguous
    receive = dist.irecv(turned, 1 - rank)
    dist.isend(torch.full((1000, 3), rank + 4.0), 1 - rank).wait()
    receive.wait()
    assert (turned == 5.0 - rank).all()
    assert not ENDS_ARE_SEEN or receive.is_completed() and receive.is_success()
    for refused, word in ((lambda: dist.all_reduce(torch.tensor([3.0]), op=dist.ReduceOp.BAND), "BAND"),
                          (lambda: dist.recv(torch.zeros(1)), "named")):  # fmt: skip
        try:
            refused()
        except (RuntimeError, ValueError) as error:
            assert word in str(error), error
        else:
            raise AssertionError(word)


def train(rank, size):
    """Data-parallel training with DistributedDataParallel; the losses and the weights."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3))
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    data = torch.randn(120, 20)
    target = data[:, :3].argmax(1)
    share = slice(rank * 120 // size, (rank + 1) * 120 // size)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(parallel(data[share]), target[share])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses + [parameter.detach() for parameter in model.parameters()]


class Branches(torch.nn.Module):
    """A model of which each call uses a part."""

    def __init__(self):
        super().__init__()
        self.common = torch.nn.Linear(8, 8)
        self.branches = torch.nn.ModuleList(torch.nn.Linear(8, 2) for _ in range(3))
        self.never = torch.nn.Linear(8, 2)

    def forward(self, data, branch):
        return self.branches[branch](torch.tanh(self.common(data)))


def train_with_unused_parameters(rank, size):
    torch.manual_seed(2)
    torch.set_num_threads(1)
    parallel = torch.nn.parallel.DistributedDataParallel(Branches(), find_unused_parameters=True)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    data = torch.randn(size, 5, 8)
    for step in range(9):
        optimizer.zero_grad()
        parallel(data[rank], (step + rank) % 3).square().sum().backward()
        optimizer.step()
    return [parameter.detach() for parameter in parallel.parameters()]


def train_with_options(rank, size):
    """Gradients as views of buckets, of which there are many, in half precision; steps without an exchange; uneven inputs."""
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    torch.manual_seed(3)
    torch.set_num_threads(1)
    model = torch.nn.Sequential(*(layer for _ in range(4) for layer in (torch.nn.Linear(60, 60), torch.nn.Tanh())))
    parallel = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True, bucket_cap_mb=0.01)
    parallel.register_comm_hook(None, default_hooks.fp16_compress_hook)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    data = torch.randn(size, 7, 60)
    with parallel.join():
        for step in range(4 + 2 * rank):
            optimizer.zero_grad(set_to_none=False)
            with parallel.no_sync():
                parallel(data[rank]).square().mean().backward()
            parallel(data[rank]).square().mean().backward()
            optimizer.step()
    return [parameter.detach() for parameter in parallel.parameters()]


def die_in_the_middle(rank, size):
    data = torch.ones(1000)
    dist.all_reduce(data)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        dist.all_reduce(data)
    except RuntimeError as error:
        assert "PEER_LOST" in str(error), error
        os._exit(0)
    os._exit(1)


class Torch(unittest.TestCase):
    def compare(self, size, body, tolerance=None):
        outcomes = {}
        for backend in ("gloo", "migshare"):
            codes, outcomes[backend] = run(backend, size, body)
            self.assertEqual(codes, [0] * size, backend)
        for theirs, ours in zip(outcomes["gloo"], outcomes["migshare"]):
            self.assertEqual(len(theirs), len(ours))
            for a, b in zip(theirs, ours):
                equal = torch.equal(a, b) if tolerance is None else torch.allclose(a, b, atol=tolerance)
                self.assertTrue(equal, (a, b))

    def test_every_call_gives_what_gloo_gives(self):
        self.compare(2, every_call)
        self.compare(3, every_call)

    def test_messages_may_be_started_in_any_order(self):
        self.compare(2, messages)

    def test_more_calls_give_what_gloo_gives(self):
        self.compare(2, more_calls)

    def test_what_gloo_has_not_is_right_or_refused_in_words(self):
        self.assertEqual(run("migshare", 2, not_in_gloo)[0], [0, 0])

    def test_training_with_two_ranks_is_bit_equal_to_gloo(self):
        self.compare(2, train)

    def test_training_in_less_usual_ways_is_bit_equal_to_gloo(self):
        self.compare(2, train_with_unused_parameters)
        self.compare(2, train_with_options)

    def test_training_with_three_ranks_agrees_with_gloo(self):
        # Three addends may be combined in another order.
        self.compare(3, train, tolerance=1e-5)

    def test_a_killed_rank_is_an_error_in_the_others(self):
        codes, _ = run("migshare", 2, die_in_the_middle)
        self.assertEqual(codes, [0, -signal.SIGKILL])


if __name__ == "__main__":
    unittest.main()
