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

    def test_training_with_two_ranks_is_bit_equal_to_gloo(self):
        self.compare(2, train)

    def test_training_with_three_ranks_agrees_with_gloo(self):
        # Three addends may be combined in another order.
        self.compare(3, train, tolerance=1e-5)

    def test_a_killed_rank_is_an_error_in_the_others(self):
        codes, _ = run("migshare", 2, die_in_the_middle)
        self.assertEqual(codes, [0, -signal.SIGKILL])


if __name__ == "__main__":
    unittest.main()
