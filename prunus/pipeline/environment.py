"""The environment of a run, for its record: versions of packages, and hardware."""

import importlib.metadata
import os
import platform

import torch

from prunus.deploy.kit_script import processor

PACKAGES = ("prunus", "torch", "torchvision", "numpy", "onnx", "onnxruntime", "openvino")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on, absent packages left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str]:
    """Return processor, cores, memory and accelerator."""
    found = {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
    }
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name()
    return found
