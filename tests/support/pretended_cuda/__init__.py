"""A CUDA device that is not there: tensors of the CPU whose storages are marked as being on a device.

    with PretendedCuda() as gpu:  # code under test runs with torch.device("cuda")
        ...
    gpu.waits.noted  # where the host would have waited for the device, by file and line

It runs with any build of torch, at the speed of the CPU. It notices, as CUDA would or more strictly:

- tensors of two devices in one operation (a CPU tensor without dimensions may mix, an index on the CPU waits);
- waits of the host: `item`, `tolist`, `bool`, `nonzero`, boolean indices, copies between host and device unless they
  are non-blocking and the host's memory is pinned;
- non-blocking copies to the host that are read too early: they arrive with the next wait;
- CUDA graphs: while capturing, a wait and work on the CPU raise; what was captured is rolled back, and `replay` does
  the recorded operations again on the same tensors. An attribute that was bound anew, or a Python number that has
  changed, is therefore stale. Graphs that share a pool overwrite each other's tensors as in `graphs.py`;
- more bytes on a device than `limit`;
- operations that have no deterministic implementation on CUDA, under `torch.use_deterministic_algorithms`.

It cannot notice: the order of work in streams, other threads than that which entered it, kernels and their rounding,
the speed and the alignment of memory, autocast's list of operations for CUDA, generators made for the device, and
operations that PyTorch implements differently for CUDA. The device draws its random numbers from the CPU's generator.
"""

from tests.support.pretended_cuda.device import PretendedCuda

__all__ = ["PretendedCuda"]
