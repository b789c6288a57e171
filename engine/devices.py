"""The one device policy: what the hardware is → precision, attention, bucketing, compile.

| device                                | precision | attention | fused encoder | why                                       |
|---------------------------------------|-----------|-----------|---------------|-------------------------------------------|
| CPU without bf16 instructions (AVX2)  | fp32      | eager     | yes           | bf16 is emulated there, 300 times slower  |
| CPU with avx512_bf16 or AMX           | bf16      | eager     | yes           | flash backward on CPUs is slow at < 512   |
| the same with VNNI, on Linux x86-64   | int8      | eager     | yes           | frozen products twice as fast as in bf16  |
| CUDA from compute capability 8.0      | bf16      | sdpa      | no            | tensor cores; sdpa picks flash attention  |
| CUDA before 8.0                       | fp32      | sdpa      | no            | no bf16 units                             |
| MPS                                   | fp32      | sdpa      | no            | bf16 is not complete there                |
| CUDA, with model.load_in_8bit, _4bit  | as above  | sdpa      | no            | bitsandbytes: frozen weights in int8, nf4 |
| any, with lora.bias or modules_to_save | fp32     | as above  | as above      | bf16 swallows small steps of base weights |
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from engine.config import FewBits, ModelSection, RunConfig
from engine.errors import ConfigError, EngineError, Problem
from engine.kernels import int8
from engine.training.distributed import ALONE, World


class DeviceUnavailable(EngineError):
    """The device asked for is not in this machine."""

    code = "device_unavailable"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the policy has chosen for a run."""

    device: torch.device
    dtype: torch.dtype
    attention: str
    fused_encoder: bool
    threads: int
    compiled: bool = False
    world: World = ALONE
    few_bits: FewBits | None = None
    int8: bool = False  # products of training steps with frozen bf16 weights

    @property
    def precision(self) -> str:
        """fp32, bf16 or int8."""
        if self.int8:
            return "int8"
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"

    @property
    def name(self) -> str:
        """The device as a person would say it."""
        one = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return one if self.world.size == 1 else f"{self.world.size} × {one}"


def choose(config: RunConfig, world: World = ALONE) -> Plan:
    """Apply the policy to this machine; DeviceUnavailable when the device asked for is missing."""
    device = _of_process(_device(config.training.device), world)
    refuse_few_bits(config.model, device)
    dtype = _dtype(config, device)
    on_cpu = device.type == "cpu"
    return Plan(
        device=device,
        dtype=dtype,
        attention="eager" if on_cpu else "sdpa",
        fused_encoder=on_cpu,
        threads=config.system.num_threads or max(1, usable_cores() // world.size),
        world=world,
        few_bits=config.model.few_bits,
        int8=_int8(config, device, dtype),
    )


def refuse_few_bits(model: ModelSection, device: torch.device) -> None:
    """Raise ConfigError where frozen weights can't be held in 8 or 4 bits."""
    field = f"model.{model.few_bits}"
    if model.few_bits is None:
        return
    if device.type != "cuda":
        code = "needs_cuda"
        said = f"{field} needs an NVIDIA GPU, and this run would train on {device.type}. Leave it out, or train where there is one."
    elif find_spec("bitsandbytes") is None:
        code = "needs_bitsandbytes"
        said = (
            f"{field} needs the package bitsandbytes, which is not installed here: pip install -r requirements-cuda.txt"
        )
    else:
        return
    raise ConfigError([Problem(field, said, code)])


def _of_process(device: torch.device, world: World) -> torch.device:
    """Of several processes each has a GPU of its own; CPU cores are shared out."""
    if world.size == 1 or device.type == "cpu":
        return device
    if device.type != "cuda" or world.local_rank >= torch.cuda.device_count():
        raise DeviceUnavailable(
            f"This machine has fewer GPUs than torchrun started processes ({torch.cuda.device_count()} for NVIDIA's CUDA). "
            "Start no more processes than GPUs, or set training.device to cpu.",
            field="training.device",
        )
    torch.cuda.set_device(world.local_rank)
    return torch.device("cuda", world.local_rank)


def usable_cores() -> int:
    """Cores this process may use: its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def cpu_has_bf16() -> bool:
    """Whether matrix products in bf16 run in hardware (avx512_bf16 or AMX; on ARM: bf16)."""
    probes: tuple[Any, ...] = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", None),
        getattr(torch.cpu, "_is_amx_tile_supported", None),
    )
    return any(probe() for probe in probes if probe is not None) or _flag_bf16()


def _flag_bf16() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split()))


def _device(wanted: str) -> torch.device:
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[wanted]:
        raise DeviceUnavailable(
            f"This machine has no {wanted.upper()} device. Choose auto or one of: "
            f"{', '.join(name for name, there in available.items() if there)}.",
            field="training.device",
        )
    return torch.device(wanted)


def _dtype(config: RunConfig, device: torch.device) -> torch.dtype:
    if config.training.precision != "auto":
        return torch.float32 if config.training.precision == "fp32" else torch.bfloat16
    if config.lora.trains_base_weights:
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bf16() else torch.float32


def _int8(config: RunConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether frozen products are in int8; ConfigError where that is asked for and can't be."""
    wanted, possible = config.training.precision, device.type == "cpu" and int8.available()
    if wanted == "int8" and not possible:
        said = (
            "training.precision int8 needs a CPU with VNNI under Linux. Leave it out: auto takes what is fastest here."
        )
        raise ConfigError([Problem("training.precision", said, "needs_vnni")])
    return possible and dtype == torch.bfloat16 and wanted in {"auto", "int8"}


def peak_memory_mb(device: torch.device) -> float:
    """Highest memory so far in MiB: of the GPU where it computes there, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
