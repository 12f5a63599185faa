"""The shared object and its functions, as migshare.h declares them. Nothing else calls ctypes."""

import ctypes
import os
import pathlib

ABI_VERSION = 1
PENDING = 10

_PATH = os.environ.get("MIGSHARE_LIBRARY") or str(pathlib.Path(__file__).with_name("libmigshare.so.1"))

_P, _PP = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
_I, _U, _S = ctypes.c_int32, ctypes.c_uint64, ctypes.c_size_t
_REQUEST = ctypes.POINTER(ctypes.c_uint64)

#: Collectives by name: the arguments between the communicator and the request.
_COLLECTIVES = {
    "barrier": [],
    "broadcast": [_P, _S, _I, _I],
    "all_reduce": [_P, _P, _S, _I, _I],
    "reduce": [_P, _P, _S, _I, _I, _I],
    "reduce_scatter": [_P, _P, _S, _I, _I],
    "all_gather": [_P, _P, _S, _I],
    "gather": [_P, _P, _S, _I, _I],
    "scatter": [_P, _P, _S, _I, _I],
    "all_to_all": [_P, _P, _S, _I],
}
_OTHERS = {
    "segment_create": [_U, _I, _PP],
    "segment_from_fd": [ctypes.c_int, _I, _PP],
    "segment_from_env": [_I, _PP],
    "segment_create_named": [ctypes.c_char_p, _U, _I, _PP],
    "segment_open_named": [ctypes.c_char_p, _I, _PP],
    "segment_claim": [_P],
    "segment_free": [_P],
    "comm_from_env": [_PP],
    "comm_join": [_P, _I, _U, _PP],
    "comm_split": [_P, _I, _I, _PP],
    "comm_free": [_P],
    "comm_abort": [_P],
    "comm_segment": [_P, _PP],
    "comm_rank": [_P, ctypes.POINTER(_I)],
    "comm_size": [_P, ctypes.POINTER(_I)],
    "comm_set_timeout": [_P, _U],
    "comm_set_patience": [_P, _U],
    "alloc": [_P, _S, _PP],
    "free": [_P, _P],
    "isend": [_P, _P, _S, _I, _U, _REQUEST],
    "irecv": [_P, _P, _S, _I, _U, _REQUEST],
    "test": [_P, _U, ctypes.POINTER(_S)],
    "wait_for": [_P, _U, _U, ctypes.POINTER(_S)],
}


def _load():
    try:
        library = ctypes.CDLL(_PATH)
    except OSError as error:
        raise ImportError(f"{error}: install the wheel, or name the library in MIGSHARE_LIBRARY") from error
    if library.migshare_abi_version() != ABI_VERSION:
        raise ImportError(f"{_PATH} has another ABI version than this package: install both from one release")
    signatures = dict(_OTHERS)
    for name, arguments in _COLLECTIVES.items():
        signatures[name] = [_P, *arguments]
        signatures["i" + name] = [_P, *arguments, _REQUEST]
    for name, arguments in signatures.items():
        function = getattr(library, "migshare_" + name)
        function.argtypes, function.restype = arguments, ctypes.c_int32
    library.migshare_unfinished.argtypes, library.migshare_unfinished.restype = [], ctypes.c_uint64
    library.migshare_segment_fd.argtypes, library.migshare_segment_fd.restype = [_P], ctypes.c_int
    for name in ("status_name", "last_error"):
        getattr(library, "migshare_" + name).restype = ctypes.c_char_p
    library.migshare_status_name.argtypes = [_I]
    return library


LIBRARY = _load()


class Error(RuntimeError):
    """A call failed. `status` is the name of the status, such as "PEER_LOST"."""

    def __init__(self, status, text):
        super().__init__(f"{status}: {text}")
        self.status = status


def call(name, *arguments):
    """Calls `migshare_<name>`; the interpreter lock is free meanwhile. True, or False for "pending"."""
    status = getattr(LIBRARY, "migshare_" + name)(*arguments)
    if status == 0:
        return True
    if status == PENDING:
        return False
    label = LIBRARY.migshare_status_name(status).decode().removeprefix("MIGSHARE_")
    raise Error(label, LIBRARY.migshare_last_error().decode())


def make(name, *arguments):
    """Calls a function whose last argument takes a new object."""
    made = ctypes.c_void_p()
    call(name, *arguments, ctypes.byref(made))
    return made
