"""How far a student's scores are from its teacher's (Hinton, Vinyals & Dean 2015)."""

from torch import Tensor
from torch.nn import functional

from prunus.errors import TrainingError
from prunus.tasks.outputs import Reading


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over samples and positions.

    T^2 keeps the size of the gradients whatever T. Nothing flows back into the teacher.

    Args:
        student: scores [N, C, ...].
        teacher: scores of the same shape.
        temperature: T > 0; above 1 it shows the student how the teacher ranks the wrong classes.

    Raises:
        TrainingError: shapes that differ, or what is no tensor.
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
