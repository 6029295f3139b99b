import importlib.util
import subprocess
import sys
from importlib import import_module
from inspect import isabstract
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from deployed_networks import Segmenter, seeded
from torch import nn

from prunus import backends
from prunus.backends.interface import missing_library
from prunus.errors import DeployError, RecipeError

IMAGE = np.random.default_rng(0).standard_normal((2, 3, 16, 32), dtype=np.float32)


@final
class Private(backends.Backend):
    """A backend that a user might keep in a package of their own."""

    name = "private"
    reads_modules = True

    def absence(self):
        return None

    def load(self, network, shapes, threads):
        return backends.find("torch").load(network, shapes, threads)


def test_the_table_knows_every_backend_by_its_own_name():
    assert all(backend.name == name for name, backend in backends.BACKENDS.items())
    modules = [
        import_module(f"prunus.backends.{path.stem}") for path in Path(backends.__file__).parent.glob("[!_]*.py")
    ]
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    own = {kind for kind in kinds if issubclass(kind, backends.Backend) and not isabstract(kind)}
    assert own == {type(backend) for backend in backends.BACKENDS.values()}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_a_session_runs_and_its_bound_call_runs_the_same(name, segmenter, segmenter_file):
    backend = backends.find(name)
    assert backend.absence() is None
    network = segmenter if backend.reads_modules else segmenter_file
    with backend.load(network, [IMAGE.shape], 1) as session:
        outputs = session.run([IMAGE])
        session.bind([IMAGE])()
        assert (session.device, session.precision) == ("cpu", "float32")
    assert list(outputs) == ["output"]
    with torch.no_grad():
        expected = segmenter.eval()(torch.from_numpy(IMAGE)).numpy()
    np.testing.assert_allclose(outputs["output"], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_wrong_inputs_are_refused_when_they_are_bound(name, fusion, fusion_file):
    backend = backends.find(name)
    network = fusion if backend.reads_modules else fusion_file
    with (
        backend.load(network, [(2, 3, 16, 32), (2, 1, 16, 32)], 1) as session,
        pytest.raises(DeployError, match="failed" if name == "torch" else "the network has 2 inputs, 1 are"),
    ):
        session.bind([IMAGE])


def test_pytorch_computes_in_the_modules_own_type_on_the_threads_it_is_given():
    before = torch.get_num_threads()
    model = seeded(Segmenter).double()
    with backends.find("torch").load(model, [IMAGE.shape], before + 1) as session:
        assert torch.get_num_threads() == before + 1
        assert session.precision == "float64"
        assert model.training  # a copy runs, in evaluation mode
        assert np.array_equal(*(session.run([IMAGE.astype(np.float64)])["output"] for _ in range(2)))  # no dropout
    assert torch.get_num_threads() == before and model.training


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "tensorrt"])
def test_backends_that_read_files_say_so(name):
    with pytest.raises(DeployError, match=f"{name} reads ONNX files, not a ReLU.*export_onnx"):
        backends.find(name).load(nn.ReLU(), [(1, 3)], 1)


def test_pytorch_says_that_it_runs_no_files(segmenter_file):
    with pytest.raises(DeployError, match="PyTorch does not run ONNX files"):
        backends.find("torch").load(segmenter_file, [IMAGE.shape], 1)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_tensorrt_says_why_it_is_not_here():
    assert "tensorrt cannot be imported" in backends.find("tensorrt").absence()


def test_a_missing_library_is_named_with_a_way_to_get_it():
    reason = missing_library("no_such_library", "install it with `pip install it`")
    assert reason.startswith("no_such_library cannot be imported") and "pip install it" in reason


def test_a_private_backend_is_found_by_its_dotted_path():
    assert backends.find(f"{__name__}.Private").name == "private"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onnx_runtime", "Did you mean 'onnxruntime'"),
        ("zzz", "there is no backend 'zzz'. Available: onnxruntime, openvino, tensorrt, torch"),
        ("no.such.Backend", "'no.such.Backend' cannot be imported"),
        ("pathlib.Path", "'pathlib.Path' is not a backend"),
    ],
)
def test_unknown_backends_are_refused(name, message):
    with pytest.raises(RecipeError, match=message):
        backends.find(name)


SIGNALLED = """
import gc, os, signal, sys
from pathlib import Path
from prunus import backends

openvino, received = backends.find("openvino"), []
sessions = [openvino.load(Path(sys.argv[1]), [(1, 3, 16, 32)], 1) for _ in range(2)]
while sessions:
    sessions.pop(0).close()
    gc.collect()
signal.signal(signal.SIGUSR1, lambda *arguments: received.append(arguments))
os.kill(os.getpid(), signal.SIGUSR1)
print(len(received))
"""


def test_a_process_survives_signals_after_openvino_was_closed(segmenter_file):
    """OpenVINO's plugins leave a signal stack behind that is gone with them."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(segmenter_file)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
