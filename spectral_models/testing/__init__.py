"""Conformance checks of model variants and tasks, third parties' included.

    MODELS = [ModelCase(load_config({"type": "acme/strand", ...}))]

    @pytest.mark.parametrize(("check", "case"), pairs(MODEL_CHECKS, MODELS), ids=str)
    def test_it_keeps_its_promises(check, case):
        check(case)

For tasks: a :class:`TaskCase`, with a model and with data that the test writes, and ``TASK_CHECKS``.
"""

from spectral_layers.testing.check import Check, checks_in, pairs
from spectral_models.testing import models, tasks
from spectral_models.testing.cases import ModelCase, TaskCase

MODEL_CHECKS: tuple[Check[ModelCase], ...] = checks_in(models)
TASK_CHECKS: tuple[Check[TaskCase], ...] = checks_in(tasks)

__all__ = ["MODEL_CHECKS", "TASK_CHECKS", "Check", "ModelCase", "TaskCase", "pairs"]
