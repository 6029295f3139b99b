"""The distance between a student's and its teacher's scores (Hinton, Vinyals & Dean 2015)."""

from torch import Tensor
from torch.nn import functional

from prunus.errors import TrainingError
from prunus.tasks.outputs import Reading


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over samples and positions.

    The factor T^2 makes the size of the gradients independent of T. The teacher receives no gradient.

    Args:
        student: scores [N, C, ...].
        teacher: scores of the same shape.
        temperature: T > 0; above 1 the loss emphasises how the teacher ranks the wrong classes.

    Raises:
        TrainingError: the shapes differ, or an argument does not hold one tensor.
    """
    student, teacher = Reading().scores(student), Reading().scores(teacher)
    if student.shape != teacher.shape:
        raise TrainingError(
            f"distillation: the student's output has shape {list(student.shape)}, the teacher's {list(teacher.shape)}; "
            "both must be of the same task at the same resolution"
        )
    wanted = functional.log_softmax(teacher.detach().float() / temperature, dim=1)
    found = functional.log_softmax(student.float() / temperature, dim=1)
    divergence = functional.kl_div(found, wanted, reduction="none", log_target=True).sum(1)
    return temperature**2 * divergence.mean()
