"""The device policy: from the hardware to precision, attention implementation and kernels.

| device                                | precision | attention | fused encoder | why                                       |
|---------------------------------------|-----------|-----------|---------------|-------------------------------------------|
| CPU without bf16 instructions (AVX2)  | fp32      | eager     | yes           | bf16 is emulated there, 300 times slower  |
| CPU with avx512_bf16 or AMX           | bf16      | eager     | yes           | flash backward on CPUs is slow at < 512   |
| the same with VNNI, on Linux x86-64   | int8      | eager     | yes           | frozen products twice as fast as in bf16  |
| CUDA from compute capability 8.0      | bf16      | sdpa      | yes, packed   | tensor cores; flash attention             |
| CUDA before 8.0                       | fp32      | sdpa      | yes, packed   | no bf16 units                             |
| MPS                                   | fp32      | sdpa      | no            | bf16 is not complete there                |
| CUDA, with model.load_in_8bit, _4bit  | as above  | sdpa      | no            | bitsandbytes: frozen weights in int8, nf4 |
| CUDA, with training.deterministic     | as above  | eager     | yes, packed   | sdpa sums gradients in any order          |
| any, with lora.bias or modules_to_save | fp32     | as above  | as above      | bf16 loses small updates of base weights  |
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from engine.config import RunConfig
from engine.config_sections import ModelSection, Quantization
from engine.errors import ConfigError, DeviceUnavailableError, Problem
from engine.kernels import int8
from engine.sentences import Sentence, gettext_noop
from engine.training.distributed import ALONE, World


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """How a run computes, as chosen by the policy."""

    device: torch.device
    dtype: torch.dtype
    attention: str
    fused_encoder: bool
    threads: int
    world: World = ALONE
    quantization: Quantization | None = None
    packed: bool = False  # the fused encoder computes texts end to end, without padding
    int8: bool = False  # training steps multiply with the frozen bf16 weights in int8

    @property
    def precision(self) -> str:
        """Return the precision of products with the frozen weights: fp32, bf16 or int8."""
        if self.int8:
            return "int8"
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"

    @property
    def name(self) -> str:
        """Return the display name of the device, such as "cpu" or "2 × NVIDIA H100"."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return name if self.world.size == 1 else f"{self.world.size} × {name}"


def choose(config: RunConfig, world: World = ALONE) -> DevicePlan:
    """Apply the policy to this machine.

    Raises DeviceUnavailableError if the configured device is missing, ConfigError if it cannot do what is configured.
    """
    device = device_of_process(find_device(config.training.device), world)
    refuse_quantization(config.model, device)
    on_cpu = device.type == "cpu"
    int8_available = on_cpu and int8.available()
    precision = config.training.precision
    if precision == "int8" and not int8_available:
        message = Sentence(
            gettext_noop(
                "training.precision int8 needs a CPU with VNNI instructions, under Linux. Remove it: auto chooses the "
                "fastest precision of this machine."
            )
        )
        raise ConfigError([Problem("training.precision", message, "needs_vnni")])
    if precision != "auto":
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    elif config.lora.trains_base_weights:
        dtype = torch.float32
    elif device.type == "cuda":
        dtype = torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    else:
        dtype = torch.bfloat16 if on_cpu and cpu_has_bf16() else torch.float32
    return DevicePlan(
        device=device,
        dtype=dtype,
        attention="eager" if on_cpu or (device.type == "cuda" and config.training.deterministic) else "sdpa",
        fused_encoder=on_cpu or (device.type == "cuda" and config.model.quantization is None),
        threads=config.system.num_threads or default_threads(world),
        world=world,
        quantization=config.model.quantization,
        packed=device.type == "cuda",
        int8=int8_available and dtype == torch.bfloat16 and precision in {"auto", "int8"},
    )


def refuse_quantization(model: ModelSection, device: torch.device) -> None:
    """Raise ConfigError if the configuration asks for 8-bit or 4-bit weights and `device` cannot hold them."""
    if model.quantization is None:
        return
    field = f"model.{model.quantization}"
    if device.type != "cuda":
        message = Sentence(
            gettext_noop(
                "{field} needs an NVIDIA GPU, and this run would train on {device}. Remove it, or train on a machine with "
                "one."
            ),
            field=field,
            device=device.type,
        )
        raise ConfigError([Problem(field, message, "needs_cuda")])
    if find_spec("bitsandbytes") is None:
        message = Sentence(
            gettext_noop(
                "{field} needs the package bitsandbytes, which is not installed: pip install -r requirements-cuda.txt"
            ),
            field=field,
        )
        raise ConfigError([Problem(field, message, "needs_bitsandbytes")])


def device_of_process(device: torch.device, world: World) -> torch.device:
    """Return the device of this process: of several processes, each has its own GPU; CPU cores are divided.

    Raises DeviceUnavailableError if there are more processes than GPUs.
    """
    if world.size == 1 or device.type == "cpu":
        return device
    if device.type != "cuda" or world.local_rank >= torch.cuda.device_count():
        raise DeviceUnavailableError(
            Sentence(
                gettext_noop(
                    "torchrun started more processes than this machine has GPUs ({gpus} with CUDA). Start at most one "
                    "process per GPU, or set training.device to cpu."
                ),
                gpus=torch.cuda.device_count(),
            ),
            field="training.device",
        )
    torch.cuda.set_device(world.local_rank)
    return torch.device("cuda", world.local_rank)


def default_threads(world: World) -> int:
    """Return OMP_NUM_THREADS, as every program that uses OpenMP does, or else this process's share of the usable cores."""
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if world.size == 1 and chosen.isdecimal():  # torchrun sets it to 1 wherever it starts several processes
        return max(1, int(chosen))
    return max(1, usable_cores() // world.size)


def usable_cores() -> int:
    """Return the number of cores that this process may use: its CPU affinity and its container's quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores  # no cgroup v2


def cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bf16 matrices in hardware (x86: avx512_bf16 or AMX; ARM: bf16)."""
    # torch's own checks are private and come and go between versions, so /proc/cpuinfo is read as well.
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        is_supported = getattr(torch.cpu, name, None)
        if is_supported is not None and is_supported():
            return True
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split()))


def peak_memory_mb(device: torch.device) -> float:
    """Return the highest memory use so far in MiB: of the GPU if `device` is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # Unix only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes on macOS, KiB on Linux


def find_device(name: str) -> torch.device:
    """Return the device of this machine with that name; auto is the fastest one. Raises DeviceUnavailableError."""
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present.insert(0, "cuda")
    if name == "auto":
        return torch.device(present[0])
    if name not in present:
        raise DeviceUnavailableError(
            Sentence(
                gettext_noop("This machine has no {device} device. Choose auto or one of: {present}."),
                device=name.upper(),
                present=", ".join(present),
            ),
            field="training.device",
        )
    return torch.device(name)
