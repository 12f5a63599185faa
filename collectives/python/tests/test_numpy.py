"""Processes of the standard library's multiprocessing as ranks. Run with Debian's python3-numpy."""

import array
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import unittest
import weakref

import numpy as np

import migshare


def launch(ranks, body):
    """Runs `body(comm)` in each rank; the exit codes."""
    segment = migshare.Segment.create(ranks)

    def rank_main(rank):
        body(migshare.Comm.join(migshare.Segment.from_fd(segment.fileno(), ranks), rank, timeout=60))

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=rank_main, args=(rank,)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


class Numpy(unittest.TestCase):
    def all_ranks(self, ranks, body):
        self.assertEqual(launch(ranks, body), [0] * ranks)

    def test_every_collective_on_arrays(self):
        def body(comm):
            rank, size = comm.rank, comm.size
            for kind in ("f2", "f4", "f8", "i1", "i4", "i8", "u1", "u2"):
                own = np.full((10, 30), rank + 1, kind)
                out = np.zeros_like(own)
                comm.all_reduce(own, out)
                assert (out == 6).all()
                comm.all_reduce(own, op="max")
                assert (own == 3).all()
            own = np.full(1000, rank, np.float32)
            every = np.zeros((size, 1000), np.float32)
            comm.all_gather(own, every)
            assert (every[:, 7] == [0, 1, 2]).all()
            part = np.zeros(1000, np.float32)
            comm.reduce_scatter(every, part, op="average")
            assert (part == rank).all()
            comm.scatter(every if rank == 1 else None, part, root=1)
            assert (part == rank).all()
            comm.gather(own, every if rank == 2 else None, root=2)
            comm.reduce(own, part, root=0)
            assert rank != 0 or (part == 3).all()
            turned = np.zeros_like(every)
            comm.all_to_all(np.repeat(np.arange(3, dtype="f4") + 10 * rank, 1000), turned)
            assert (turned[:, 0] == [rank, rank + 10, rank + 20]).all()
            comm.broadcast(own, root=1)
            assert (own == 1).all()
            comm.barrier()

        self.all_ranks(3, body)

    def test_buffers_that_are_not_numpy(self):
        def body(comm):
            numbers = array.array("d", [comm.rank] * 100)
            comm.all_reduce(numbers)
            assert numbers[99] == 1
            data = bytearray(300_000)
            if comm.rank == 0:
                comm.send(b"x" * 300_000, 1)
            else:
                assert comm.recv(data, 0) == 300_000
                assert data == b"x" * 300_000

        self.all_ranks(2, body)

    def test_requests_split_and_segment_memory(self):
        def body(comm):
            view = comm.allocate(1 << 20)
            shared = np.frombuffer(view, np.float32)
            shared[:] = 2
            request = comm.all_reduce(shared, blocking=False)
            while not request.test():
                pass
            assert (shared == 8).all() and request.wait() == 0
            for _ in range(300):  # more than there is, were it not given back
                comm.free(comm.allocate(1 << 20))
            try:
                comm.free(bytearray(8))
            except migshare.Error as error:
                assert error.status == "INVALID", error
            pair = comm.split(comm.rank // 2)
            assert (pair.size, pair.rank) == (2, comm.rank % 2)
            own = np.array([comm.rank])
            pair.all_reduce(own)
            assert own[0] == (1 if comm.rank < 2 else 5)
            assert comm.split(None) is None

        self.all_ranks(4, body)

    def test_a_named_segment_needs_no_common_parent(self):
        name = f"/migshare-test-{os.getpid()}"
        owner = migshare.Segment.create_named(name, 1, 8 << 20)
        with migshare.Comm.join(migshare.Segment.open_named(name, 1), 0) as comm:
            own = np.array([5])
            comm.all_reduce(own)
            self.assertEqual(own[0], 5)
        self.assertRaises(migshare.Error, migshare.Segment.create_named, name, 1, 8 << 20)
        del owner
        self.assertRaises(migshare.Error, migshare.Segment.open_named, name, 1)

    def test_a_closed_communicator_says_so(self):
        def body(comm):
            comm.close()
            try:
                comm.barrier()
            except migshare.Error as error:
                assert error.status == "INVALID", error
                return
            raise AssertionError("no error")

        self.all_ranks(1, body)

    def test_complex_numbers_are_added_and_moved_and_not_compared(self):
        def body(comm):
            rank = comm.rank
            for kind in (np.complex64, np.complex128):
                own = np.array([rank + 2j, 1 - 1j * rank, 0], kind)
                out = np.zeros_like(own)
                comm.all_reduce(own, out)
                assert out.tolist() == [1 + 4j, 2 - 1j, 0]
                comm.all_reduce(own, out, op="average")
                assert out.tolist() == [0.5 + 2j, 1 - 0.5j, 0]
                every = np.zeros((2, 3), kind)
                comm.all_gather(own, every)
                assert every.tolist() == [[2j, 1, 0], [1 + 2j, 1 - 1j, 0]]
                comm.broadcast(own, root=1)
                assert own.tolist() == [1 + 2j, 1 - 1j, 0]
                reals = np.zeros(6, own.real.dtype)
                for op in ("product", "min", "max"):
                    self.assertRaises(TypeError, comm.all_reduce, own, op=op)
                self.assertRaises(TypeError, comm.all_reduce, own, reals)
                # Half of three numbers is no block.
                self.assertRaises(ValueError, comm.all_to_all, own, out)

        self.all_ranks(2, body)

    def test_bad_buffers_are_refused(self):
        def body(comm):
            good = np.zeros(10, np.float32)
            for bad in (b"read-only", good[::2], np.zeros(3, np.longdouble), object()):
                try:
                    comm.all_reduce(bad)
                except TypeError:
                    continue
                raise AssertionError(bad)
            for out in (np.zeros(9, np.float32), np.zeros(10, np.float64)):
                try:
                    comm.all_reduce(good, out)
                except (TypeError, ValueError):
                    continue
                raise AssertionError(out)

        self.all_ranks(1, body)

    def test_a_discarded_request_keeps_its_buffer_until_the_end(self):
        def body(comm):
            if comm.rank == 1:
                return comm.barrier()
            place = np.zeros(1000)
            alive = weakref.ref(place)
            comm.irecv(place, 1)
            del place
            gc.collect()
            assert alive() is not None
            comm.barrier()
            comm.close()
            gc.collect()
            assert alive() is None

        self.all_ranks(2, body)

    def test_a_request_outlives_the_call_of_another_thread(self):
        said, heard = os.pipe()[::-1]

        def body(comm):
            if comm.rank == 1:
                os.read(heard, 1)
                comm.send(np.ones(8), 0, tag=1)
                comm.send(np.ones(8), 0)
                return
            place = np.zeros(8)
            request = comm.irecv(place, 1, tag=1)

            def receive():
                while True:
                    try:
                        return comm.recv(np.zeros(8), 1)
                    except migshare.Error as error:  # it met the question below
                        assert error.status == "BUSY", error

            other = threading.Thread(target=receive)
            other.start()
            while True:  # until the other thread is in
                try:
                    assert not request.test()
                except migshare.Error as error:
                    assert error.status == "BUSY", error
                    break
            os.write(said, b"x")
            other.join()
            assert request.wait() == 64 and (place == 1).all()

        self.all_ranks(2, body)

    def test_what_failed_once_fails_again(self):
        def body(comm):
            request = comm.irecv(np.zeros(8), 1 - comm.rank, tag=comm.rank)
            comm.isend(np.zeros(8), 1 - comm.rank, tag=7).wait()
            for ask in (request.wait, request.test, request.wait):
                try:
                    ask()
                except migshare.Error as error:
                    assert error.status == "MISMATCH", error
                    continue
                raise AssertionError("no error")

        self.all_ranks(2, body)

    def test_a_view_of_segment_memory_outlives_its_communicator(self):
        # In a process of its own: without the memory it would be killed.
        program = (
            "import migshare, numpy as np\n"
            "with migshare.Comm.join(migshare.Segment.create(1), 0) as comm:\n"
            "    data = np.frombuffer(comm.allocate(4096), np.float32)\n"
            "    data[:] = 1\n"
            "del comm\n"
            "assert data.sum() == 1024\n"
        )
        self.assertEqual(subprocess.run([sys.executable, "-c", program]).returncode, 0)

    def test_a_rank_whose_block_failed_does_not_keep_the_others(self):
        def body(comm):
            # Who ends a communicator ends it also for those who are still in their last call.
            if comm.rank == 0:
                comm.send(b"in", 1)
            else:
                comm.recv(bytearray(2), 0)
            try:
                with comm:
                    if comm.rank == 1:
                        raise KeyError("bad batch")
                    comm.barrier()
            except KeyError:
                return
            except migshare.Error as error:
                # Not the timeout of a minute.
                assert error.status == "PEER_LOST", error
                return
            raise AssertionError("no error")

        self.all_ranks(2, body)

    def test_a_forked_child_has_no_rank(self):
        def body(comm):
            child = os.fork()
            if child == 0:
                try:
                    comm.barrier()
                except migshare.Error as error:
                    comm.close()
                    os._exit(0 if error.status == "INVALID" and "fork" in str(error) else 1)
                os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            comm.barrier()

        self.all_ranks(2, body)

    def test_numbers_that_do_not_fit_are_refused(self):
        def body(comm):
            data = np.zeros(2)
            for refused in (lambda: comm.broadcast(data, root=1 << 33), lambda: comm.split(1 << 40), lambda: comm.split(-3),
                            lambda: comm.set_timeout(-1), lambda: comm.isend(data, 1 << 32),
                            lambda: comm.all_reduce(np.array([True])), lambda: comm.gather(data), lambda: comm.scatter(None, data)):  # fmt: skip
                try:
                    refused()
                except (ValueError, OverflowError, TypeError, migshare.Error):
                    continue
                raise AssertionError("not refused")

        self.all_ranks(1, body)

    def test_a_killed_rank_is_an_error_with_its_name(self):
        def body(comm):
            data = np.ones(1000)
            comm.all_reduce(data)
            if comm.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                comm.all_reduce(data)
            except migshare.Error as error:
                assert error.status == "PEER_LOST" and "rank 1" in str(error), error
                return
            raise AssertionError("no error")

        self.assertEqual(launch(2, body), [0, -signal.SIGKILL])


if __name__ == "__main__":
    unittest.main()
