"""torchvision beside a CPU-only torch, before a trainer imports it; nothing is looked for on the network."""

import os
import tempfile

from prunus import compat  # noqa: F401

os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="prunus-yolo-")  # the user's own settings are left alone
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
