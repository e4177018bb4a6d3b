"""Gathering of logged values among processes on CPUs.

fairseq's ``all_gather_list`` makes its buffers with CUDA, whatever the run's device, and so fails for every criterion
whose logs cannot be summed (such as ``speech_to_unit`` of the baseline in ``configs/tiny_espeak_s2ut.yaml``). It keeps
them as attributes of the function and replaces them only if they are too small: this module sets them to buffers in
main memory.
"""

import torch
from fairseq.distributed.utils import all_gather_list

MAX_BYTES = 16384
"""The function's default for the encoded logs of a process."""
MAX_PROCESSES = 64


def provide_cpu_buffers() -> None:
    """Give ``all_gather_list`` buffers for up to 64 processes, on a machine without CUDA and only there."""
    if torch.cuda.is_available() or hasattr(all_gather_list, "_buffer"):
        return
    all_gather_list._buffer = torch.zeros(MAX_BYTES * MAX_PROCESSES, dtype=torch.uint8)
    all_gather_list._cpu_buffer = torch.zeros(MAX_BYTES, dtype=torch.uint8)


provide_cpu_buffers()
