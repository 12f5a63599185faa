"""NVIDIA's nvidia-ml-py drives mode, create, list, info and destroy."""

import ctypes

import pynvml as nvml

SIZES = {
    nvml.c_nvmlGpuInstancePlacement_t: 8,
    nvml.c_nvmlGpuInstanceProfileInfo_t: 48,
    nvml.c_nvmlGpuInstanceProfileInfo_v2_t: 152,
    nvml.c_nvmlGpuInstanceInfo_t: 24,
    nvml.c_nvmlComputeInstanceProfileInfo_v2_t: 136,
    nvml.c_nvmlComputeInstanceInfo_t: 32,
    nvml.c_nvmlDeviceAttributes: 40,
}


def refused(code, call, *arguments):
    try:
        call(*arguments)
    except nvml.NVMLError as error:
        assert error.value == code, (call.__name__, error.value, code)
        return
    raise AssertionError(f"{call.__name__} was not refused")


def profiles(gpu):
    found = {}
    for number in range(64):
        try:
            profile = nvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu, number)
        except nvml.NVMLError_NotSupported:
            continue
        except nvml.NVMLError_InvalidArgument:
            return found
        found[profile.name] = profile
    raise AssertionError("the profiles never end")


def placements(gpu, profile):
    count = ctypes.c_uint()
    nvml.nvmlDeviceGetGpuInstancePossiblePlacements(gpu, profile.id, None, ctypes.byref(count))
    places = (nvml.c_nvmlGpuInstancePlacement_t * count.value)()
    nvml.nvmlDeviceGetGpuInstancePossiblePlacements(gpu, profile.id, places, ctypes.byref(count))
    return [(place.start, place.size) for place in places]


def instances(gpu, profile):
    handles = (nvml.c_nvmlGpuInstance_t * profile.instanceCount)()
    count = ctypes.c_uint()
    nvml.nvmlDeviceGetGpuInstances(gpu, profile.id, handles, ctypes.byref(count))
    return [handles[n] for n in range(count.value)]


def main():
    for structure, size in SIZES.items():
        assert ctypes.sizeof(structure) == size, structure

    nvml.nvmlInit()
    assert nvml.nvmlSystemGetDriverVersion() == "550.54.15"
    assert nvml.nvmlDeviceGetCount() == 1
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceGetName(gpu) == "NVIDIA H100 80GB HBM3"

    # Mode.
    assert nvml.nvmlDeviceGetMigMode(gpu) == [0, 0]
    refused(nvml.NVML_ERROR_NOT_SUPPORTED, nvml.nvmlDeviceCreateGpuInstance, gpu, 19)
    assert nvml.nvmlDeviceGetMaxMigDeviceCount(gpu) == 0
    assert nvml.nvmlDeviceSetMigMode(gpu, nvml.NVML_DEVICE_MIG_ENABLE) == nvml.NVML_SUCCESS
    assert nvml.nvmlDeviceGetMigMode(gpu) == [1, 1]
    assert nvml.nvmlDeviceGetMaxMigDeviceCount(gpu) == 7

    # Profiles and placements.
    offered = profiles(gpu)
    assert sorted(offered) == [
        "MIG 1g.10gb", "MIG 1g.10gb+me", "MIG 1g.20gb", "MIG 2g.20gb", "MIG 3g.40gb", "MIG 4g.40gb", "MIG 7g.80gb",
    ], sorted(offered)
    three = offered["MIG 3g.40gb"]
    assert (three.id, three.sliceCount, three.memorySizeMB, three.multiprocessorCount) == (9, 3, 40448, 60)
    assert placements(gpu, three) == [(0, 4), (4, 4)]

    # Create, list, info.
    place = nvml.c_nvmlGpuInstancePlacement_t(4, 4)
    made = nvml.nvmlDeviceCreateGpuInstanceWithPlacement(gpu, three.id, ctypes.byref(place))
    refused(nvml.NVML_ERROR_INSUFFICIENT_RESOURCES,
            nvml.nvmlDeviceCreateGpuInstanceWithPlacement, gpu, three.id, ctypes.byref(place))
    info = nvml.nvmlGpuInstanceGetInfo(made)
    assert (info.id, info.profileId, info.placement.start, info.placement.size) == (2, 9, 4, 4)
    assert nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, three.id) == 1
    assert len(instances(gpu, three)) == 1 and instances(gpu, offered["MIG 1g.10gb"]) == []
    whole = [nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(made, number, 0) for number in (0, 1, 2)][-1]
    assert (whole.sliceCount, whole.name) == (3, "MIG 3g.40gb")
    compute = nvml.nvmlGpuInstanceCreateComputeInstance(made, whole.id)
    device = nvml.nvmlComputeInstanceGetInfo(compute).device
    uuid = nvml.nvmlDeviceGetUUID(device)
    assert uuid.startswith("MIG-")
    assert nvml.nvmlDeviceIsMigDeviceHandle(device).value == 1
    assert nvml.nvmlDeviceGetName(device) == "NVIDIA H100 80GB HBM3 MIG 3g.40gb"
    assert nvml.nvmlDeviceGetGpuInstanceId(device) == 2 and nvml.nvmlDeviceGetComputeInstanceId(device) == 0
    assert nvml.nvmlDeviceGetAttributes(device).memorySizeMB == 40448
    assert nvml.nvmlDeviceGetMemoryInfo(device).total == 40448 << 20
    by_index = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 0)
    assert nvml.nvmlDeviceGetUUID(by_index) == uuid
    refused(nvml.NVML_ERROR_NOT_FOUND, nvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, 1)
    parent = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvml.nvmlDeviceGetHandleByUUID(uuid))
    assert nvml.nvmlDeviceGetUUID(parent) == nvml.nvmlDeviceGetUUID(gpu)
    assert nvml.nvmlDeviceGetComputeRunningProcesses(device) == []

    # Destroy, and mode again.
    refused(nvml.NVML_ERROR_IN_USE, nvml.nvmlGpuInstanceDestroy, made)
    nvml.nvmlComputeInstanceDestroy(compute)
    nvml.nvmlGpuInstanceDestroy(made)
    assert instances(gpu, three) == []
    refused(nvml.NVML_ERROR_NOT_FOUND, nvml.nvmlDeviceGetHandleByUUID, uuid)
    assert nvml.nvmlDeviceSetMigMode(gpu, nvml.NVML_DEVICE_MIG_DISABLE) == nvml.NVML_SUCCESS
    nvml.nvmlShutdown()
    refused(nvml.NVML_ERROR_UNINITIALIZED, nvml.nvmlDeviceGetCount)
    print("drive: ok")


main()
