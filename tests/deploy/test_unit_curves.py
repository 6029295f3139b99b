"""Curves of units: steps, penalties and bends of a fake target are found from few measurements."""

import numpy as np
import pytest

from prunus.deploy.unit_curves import fitted_step, measured_curve, probe_sizes


def target(step, penalty=1.0, overhead=20.0):
    """Return the milliseconds of a target that computes `step` outputs at once, and a multiple of 4 inputs best."""

    def milliseconds(sizes):
        out, into = sizes
        off = penalty if into % 4 else 1.0
        return (overhead + np.ceil(out / step) * step * np.ceil(into / 4) * 4 / 100) * off * 1e-3

    return milliseconds


@pytest.mark.parametrize("step", [1, 4, 8, 16, 32])
def test_the_step_is_found(step):
    taken = {size: float(target(step)((size, 64))) for size in probe_sizes(64)}
    assert fitted_step(taken)[0] == step


def test_the_step_is_found_under_noise():
    random = np.random.default_rng(0)
    taken = {size: float(target(16)((size, 64))) * (1 + 0.02 * random.random()) for size in probe_sizes(64)}
    assert fitted_step(taken)[0] == 16


@pytest.mark.parametrize("full", [(64, 64), (256, 512), (24, 144), (1000, 320), (7, 3)])
def test_a_curve_predicts_all_sizes(full):
    asked = set()

    def measure(sizes):
        asked.add(sizes)
        return float(target(16, penalty=1.4)(sizes))

    curve = measured_curve(full, (True, True), measure)
    random = np.random.default_rng(1)
    sizes = [tuple(int(random.integers(max(1, size // 10), size + 1)) for size in full) for _ in range(200)]
    errors = [abs(float(curve.at(*map(np.array, size))) / measure(size) - 1) for size in sizes]
    assert np.median(errors) < 0.05
    assert len(asked) < 350


def test_bends_are_measured_more_closely_than_lines():
    def bent(sizes):
        return 1.0 + 0.001 * sizes[0] + (0.05 * (sizes[0] - 256) if sizes[0] > 256 else 0.0)

    curve = measured_curve((512,), (True,), bent)
    straight = measured_curve((512,), (True,), lambda sizes: 1.0 + 0.01 * sizes[0])
    assert curve.levels[0].size > straight.levels[0].size
    errors = [abs(float(curve.at(np.array(size))) / bent((size,)) - 1) for size in range(50, 513)]
    assert np.mean(errors) < 0.03


def test_sizes_that_stay_are_measured_once():
    curve = measured_curve((64, 3), (True, False), lambda sizes: float(target(16)(sizes)))
    assert curve.levels[1].tolist() == [3]
    assert float(curve.at(np.array(32), np.array(3))) == pytest.approx(target(16)((32, 3)))


def test_a_layer_that_is_gone_takes_no_time():
    curve = measured_curve((64, 64), (True, True), lambda sizes: float(target(16)(sizes)))
    assert float(curve.at(np.array(0), np.array(64))) == 0
    assert float(curve.at(np.array(64), np.array(0))) == 0
