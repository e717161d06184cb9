"""What variants and tasks are held to: checks for third parties' as for ours.

    MODELS = [ModelCase(load_config({"type": "acme/strand", ...}))]

    @pytest.mark.parametrize(("check", "case"), pairs(MODEL_CHECKS, MODELS), ids=str)
    def test_it_keeps_its_promises(check, case):
        check(case)

A :class:`TaskCase` has a model and data that the test writes; its checks are ``TASK_CHECKS``.
"""

from spectral_layers.testing.check import Check, checks_in, pairs
from spectral_models.testing import models, tasks
from spectral_models.testing.cases import ModelCase, TaskCase

MODEL_CHECKS: tuple[Check[ModelCase], ...] = checks_in(models)
TASK_CHECKS: tuple[Check[TaskCase], ...] = checks_in(tasks)

__all__ = ["MODEL_CHECKS", "TASK_CHECKS", "Check", "ModelCase", "TaskCase", "pairs"]
