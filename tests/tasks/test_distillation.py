"""Distillation: the loss by hand, its gradient, and that a student takes after its teacher."""

import math

import pytest
import torch
from torch import nn

from prunus.errors import RecipeError, TrainingError
from prunus.tasks.classification import BoundClassification
from prunus.tasks.distillation import Distillation, distillation_loss


def test_loss_by_hand():
    student, teacher = torch.log(torch.tensor([[0.5, 0.5]])), torch.log(torch.tensor([[0.9, 0.1]]))
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert distillation_loss(student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-5)
    warm = torch.softmax(teacher / 2, 1)[0]
    expected = 4 * sum(p * math.log(p / 0.5) for p in warm.tolist())
    assert distillation_loss(student, teacher, temperature=2.0).item() == pytest.approx(expected, rel=1e-5)


def test_it_is_a_mean_over_samples_and_pixels_and_zero_for_equals():
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 5, 2, 4), torch.randn(3, 5, 2, 4)
    flat = [each.movedim(1, -1).reshape(-1, 5) for each in (student, teacher)]
    torch.testing.assert_close(distillation_loss(student, teacher), distillation_loss(*flat))
    assert distillation_loss(student, student).item() == pytest.approx(0, abs=1e-6)


def test_the_size_of_the_gradient_does_not_hang_on_the_temperature():
    student = torch.randn(8, 10, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(8, 10, dtype=torch.float64, requires_grad=True)
    sizes = []
    for temperature in (20.0, 40.0):
        (gradient,) = torch.autograd.grad(distillation_loss(student, teacher, temperature), student)
        sizes.append(gradient.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)
    distillation_loss(student, teacher).backward()
    assert teacher.grad is None


def test_a_student_takes_after_its_teacher_and_leaves_it_alone():
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)).train()
    student = nn.Linear(4, 3)
    task = Distillation(weight=1.0, temperature=2.0).wrap(BoundClassification(class_names="abc"), teacher)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        inputs, target = torch.randn(32, 4), torch.randint(0, 3, (32,))
        loss = task.training_loss(inputs, student(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])
    assert teacher.training and all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_weight_mixes_both_losses():
    task = BoundClassification(class_names="abc")
    teacher, inputs, target = nn.Linear(4, 3), torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    output = torch.randn(5, 3)
    own, taught = task.loss(output, target), distillation_loss(output, teacher(inputs), 4.0)
    mixed = Distillation(weight=0.3).wrap(task, teacher)
    torch.testing.assert_close(mixed.training_loss(inputs, output, target), 0.7 * own + 0.3 * taught)
    torch.testing.assert_close(mixed.loss(output, target), own)
    assert mixed.main_metric == "top1" and mixed.predict(output).shape == (5,)


def test_what_does_not_fit_is_refused():
    with pytest.raises(TrainingError, match=r"\[2, 3\], the teacher's \[2, 4\]"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(RecipeError, match="weight"):
        Distillation(weight=2)
    with pytest.raises(RecipeError, match="temperature"):
        Distillation(temperature=0)


def test_scores_that_are_no_tensors_are_refused():
    with pytest.raises(TrainingError, match="returns a tuple with the tensors 0, 1"):
        distillation_loss(torch.zeros(1, 3), (torch.zeros(1, 3), torch.zeros(1, 3)))
