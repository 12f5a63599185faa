"""Waiting for other ranks so that signals are handled meanwhile: Ctrl-C ends a wait at once.

Python handles signals between two of its own instructions, never inside a call of the library. So collectives and requests are
waited for in slices, and what makes a communicator runs in a thread of its own. An exception that a signal handler raises, such as
KeyboardInterrupt, ends the communicator, because a part of the call is done and the other ranks wait for the rest.
"""

import ctypes
import threading
import time

from ._library import Error, call, make

#: Milliseconds between two looks for signals.
SLICE = 100
#: Seconds until a thread asks again for its turn.
_AGAIN = 0.001


class _Joining(threading.Thread):
    """A call that makes a communicator, which waits for the other ranks. Daemon: it keeps no interpreter from its end."""

    def __init__(self, name, *arguments):
        super().__init__(daemon=True)
        self._call, self._arguments = name, arguments
        self._turn, self._given_up, self._made, self._error = threading.Lock(), False, None, None

    def run(self):
        try:
            made = make(self._call, *(getattr(a, "_handle", a) for a in self._arguments))
        except Error as error:
            self._error = error
            return
        with self._turn:
            self._made = made
            if self._given_up:
                self._dispose()

    def result(self):
        """The handle. A signal handler may raise meanwhile: then whoever has met this rank is told that it does not come."""
        try:
            self.start()
            self.join()
        except BaseException:
            with self._turn:
                self._given_up = True
                if self._made is not None:
                    self._dispose()
            raise
        if self._error is not None:
            raise self._error
        return self._made

    def _dispose(self):
        call("comm_abort", self._made)
        call("comm_free", self._made)


def joined(name, *arguments):
    """The result of a call that makes a communicator; segments stand for their handles."""
    return _Joining(name, *arguments).result()


class Request:
    """A started operation. Its buffers are kept alive by the communicator, also where nobody keeps the request."""

    def __init__(self, comm, buffers):
        self._comm, self._number, self._received, self._error = comm, ctypes.c_uint64(), None, None
        comm._in_use[id(self._number)] = self._number, buffers

    def test(self):
        """Whether the operation is done."""
        return self._end("test")

    def wait(self):
        """Waits for the end; the number of bytes received, 0 for anything but a receive."""
        try:
            while not self._slice():
                pass
        except Error:
            raise
        except BaseException:
            self._comm._give_up()
            raise
        return self._received

    def _slice(self):
        try:
            return self._end("wait_for", SLICE)
        except Error as error:
            if error.status != "BUSY":
                raise
            time.sleep(_AGAIN)  # another thread asks for something between two slices
            return False

    def _end(self, how, *limit):
        if self._error is not None:
            raise self._error
        if self._number is None:
            return True
        received = ctypes.c_size_t()
        try:
            done = call(how, self._comm._handle, self._number, *limit, ctypes.byref(received))
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
        self._comm._in_use.pop(id(self._number), None)
        self._number = None
