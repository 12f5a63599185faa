"""Ctrl-C while a rank waits for another: a real SIGINT from the parent, at a time when the rank sleeps in a call."""

import contextlib
import multiprocessing
import os
import signal
import unittest

import numpy as np

import migshare

#: Seconds. Far more than any test takes, and far less than the ranks would wait for each other.
PATIENCE, TIMEOUT = 100, 3600


def until_asleep(process):
    """In the parent: waits until the main thread of a rank sleeps."""
    while process.is_alive():
        with open(f"/proc/{process.pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "S":
                return
        os.sched_yield()


class Interrupt(unittest.TestCase):
    def launch(self, ranks, body):
        """Starts ranks that say when they are about to wait. `body(rank, join, ready)` is the rank's program."""
        segment = migshare.Segment.create(ranks)
        said, ready = os.pipe()

        def main(rank):
            def join():
                return migshare.Comm.join(migshare.Segment.from_fd(segment.fileno(), ranks), rank, timeout=TIMEOUT)

            body(rank, join, lambda: os.write(ready, b"x"))

        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=main, args=(rank,)) for rank in range(ranks)]
        for process in processes:
            process.start()
        return processes, lambda: os.read(said, 1)

    def ended(self, processes):
        for process in processes:
            process.join(PATIENCE)
        self.assertEqual([process.exitcode for process in processes], [0] * len(processes))

    def interrupt_the_first(self, body):
        """Two ranks, of which the first gets a SIGINT when it waits."""
        processes, until_ready = self.launch(2, body)
        until_ready()
        until_asleep(processes[0])
        os.kill(processes[0].pid, signal.SIGINT)
        self.ended(processes)

    def interrupted_in(self, wait):
        """Rank 0 waits for something that never comes and is interrupted; the others are told though it lives on."""
        over, tell = os.pipe()

        def body(rank, join, ready):
            comm = join()
            if rank != 0:
                comm.recv(bytearray(1), 0)
                try:
                    comm.recv(bytearray(1), 0)
                except migshare.Error as error:
                    assert error.status == "PEER_LOST", error
                    os.write(tell, b"x")
                    return
                raise AssertionError("no error")
            comm.send(b"x", 1)
            ready()
            try:
                wait(comm)
            except KeyboardInterrupt:
                os.read(over, 1)
                with contextlib.suppress(migshare.Error):
                    comm.barrier()
                    raise AssertionError("the communicator goes on")
                return
            raise AssertionError("not interrupted")

        self.interrupt_the_first(body)

    def test_a_collective(self):
        self.interrupted_in(lambda comm: comm.all_reduce(np.ones(100_000)))

    def test_a_message(self):
        self.interrupted_in(lambda comm: comm.recv(np.ones(10), 1))

    def test_a_request(self):
        self.interrupted_in(lambda comm: comm.barrier(blocking=False).wait())

    def test_a_split(self):
        self.interrupted_in(lambda comm: comm.split(0))

    def test_joining(self):
        go = os.pipe()

        def body(rank, join, ready):
            if rank == 1:
                os.read(go[0], 1)
                return
            ready()
            try:
                join()
            except KeyboardInterrupt:
                os.write(go[1], b"x")
                return
            raise AssertionError("not interrupted")

        self.interrupt_the_first(body)

    def test_a_signal_whose_handler_returns_interrupts_nothing(self):
        def body(rank, join, ready):
            heard = []
            signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
            comm = join()
            if rank == 0:
                place = np.zeros(10)
                ready()
                comm.recv(place, 1)
                assert heard == [1] and (place == 5).all()
                return
            os.read(go[0], 1)
            comm.send(np.full(10, 5.0), 0)

        go = os.pipe()
        processes, until_ready = self.launch(2, body)
        until_ready()
        until_asleep(processes[0])
        os.kill(processes[0].pid, signal.SIGUSR1)
        os.write(go[1], b"x")
        self.ended(processes)


if __name__ == "__main__":
    unittest.main()
