"""Addresses and element types of buffers: numpy arrays, torch tensors, anything with the buffer protocol."""

import ctypes

#: Numbers of `migshare_type` by the names that numpy and torch use.
TYPES = {
    "float16": 0, "bfloat16": 1, "float32": 2, "float64": 3,
    "int8": 4, "int16": 5, "int32": 6, "int64": 7,
    "uint8": 8, "uint16": 9, "uint32": 10, "uint64": 11, "bool": 8,
}  # fmt: skip
#: Numbers of `migshare_type` by struct format and item size.
_FORMATS = {
    **{(kind, 2): 0 for kind in "e"}, ("f", 4): 2, ("d", 8): 3,
    **{(kind, size): 4 + index for kind in "bhilq" for index, size in enumerate((1, 2, 4, 8))},
    **{(kind, size): 8 + index for kind in "BHILQ?c" for index, size in enumerate((1, 2, 4, 8))},
}  # fmt: skip
_SIZES = (2, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8)
#: Complex numbers are pairs of these, by the names and the formats.
_HALVES = {"complex64": "float32", "complex128": "float64"}
_HALF_FORMATS = {"Zf": "f", "Zd": "d"}


class Buffer:
    """Where a buffer is, how many elements it has and of which type. Keeps the buffer alive.

    A complex number counts as two elements: where its parts are added or moved, that is the same.
    """

    def __init__(self, source, writable):
        self.owner = source
        if hasattr(source, "data_ptr"):
            self._from_tensor(source)
        else:
            self._from_memory(source, writable)

    def _from_tensor(self, tensor):
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise TypeError("migshare takes contiguous CPU tensors")
        name = str(tensor.dtype).removeprefix("torch.")
        self.is_bool, self.is_complex = name == "bool", name in _HALVES
        kind = TYPES.get(_HALVES.get(name, name))
        if kind is None:
            raise TypeError(f"migshare has no element type {name}")
        self.address, self.type = tensor.data_ptr(), kind
        self.count = tensor.numel() * (2 if self.is_complex else 1)

    def _from_memory(self, source, writable):
        view = memoryview(source)
        if not view.c_contiguous:
            raise TypeError("migshare takes contiguous buffers")
        if writable and view.readonly:
            raise TypeError("the buffer is read-only")
        form, size = view.format.lstrip("@=<"), view.itemsize
        self.is_bool, self.is_complex = form == "?", form in _HALF_FORMATS
        if self.is_complex:
            form, size = _HALF_FORMATS[form], size // 2
        kind = _FORMATS.get((form, size))
        if kind is None:
            raise TypeError(f"migshare has no element type for the format {view.format!r}")
        self.count, self.type = view.nbytes // size, kind
        self.owner, self.address = _address(view)

    @property
    def nbytes(self):
        return self.count * _SIZES[self.type]


class _PyBuffer(ctypes.Structure):
    """`Py_buffer` of the stable ABI (PEP 3118)."""

    _fields_ = [
        ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    ]  # fmt: skip


def _address(view):
    """The first byte; the view keeps the exporter from moving it. ctypes cannot look into read-only ones itself."""
    raw = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(raw), 0)
    address = raw.buf or 0
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(raw))
    return view, address
