"""The model card of a run: ``README.md`` and the learning curve beside the weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import ModelCardData

from spectral_core import __version__
from spectral_models.registries import architecture_of

if TYPE_CHECKING:
    from spectral_models.tasks.task import Task
    from spectral_models.training.config import RunConfig

CARD, CURVE = "README.md", "curve.png"
_PIPELINES = {
    "SpectralForCausalLM": "text-generation",
    "SpectralForMaskedLM": "fill-mask",
    "SpectralForSequenceClassification": "text-classification",
    "SpectralForTokenClassification": "token-classification",
    "SpectralForImageClassification": "image-classification",
    "SpectralForAudioClassification": "audio-classification",
}
"""Hugging Face's names of what a class is for."""
_COMMANDS = {
    "SpectralForCausalLM": "spectral generate {path} --prompt 'Once upon a time'",
    "SpectralForSeq2SeqLM": "spectral generate {path} --prompt 'a text'",
    "SpectralForSequenceClassification": "spectral classify {path} 'a text'",
    "SpectralForTokenClassification": "spectral classify {path} 'a text'",
    "SpectralForImageClassification": "spectral classify {path} image.png",
    "SpectralForAudioClassification": "spectral classify {path} audio.wav",
}


def write_card(
    run: RunConfig,
    task: Task,
    judged: dict[str, float],
    step: int,
    origin: Mapping[str, Any] | None,
    parameters: int,
    path: Path,
) -> None:
    """Write the card to the directory of a saved model, with a copy of the run's curve.

    judged: the held-out numbers. step: that the weights are of. origin: of :class:`SpectralModel`.
    """
    (path / CARD).write_text(_card(run, task, judged, step, origin, parameters), encoding="utf-8")
    shutil.copyfile(path.parent / CURVE, path / CURVE)


def _card(
    run: RunConfig, task: Task, judged: dict[str, float], step: int, origin: Mapping[str, Any] | None, parameters: int
) -> str:
    when = f"at step {step}, the best evaluation on these data" if run.training.keeps_best else "after the last step"
    architecture = architecture_of(task.model) or ""
    source = run.data.source
    about = ModelCardData(
        library_name="transformers",
        tags=["spectral-networks", task.model.type],
        pipeline_tag=_PIPELINES.get(architecture),
        datasets=[source.removeprefix("datasets:").partition(":")[0]] if source.startswith("datasets:") else None,
    )
    numbers = "\n".join(f"| {name} | {value} |" for name, value in task.lines(judged))
    data = "\n".join(
        f"| {name} | {part['count']:,} {part['what']} | `{part['sha256'][:16]}` |"
        for name, part in task.fingerprint().items()
    )
    began = f"Its weights begin from `{origin['checkpoint']}`." if origin else "Its weights begin at random."
    command = _COMMANDS.get(architecture, "spectral evaluate {path}").format(path="PATH")
    return f"""---
{about.to_yaml()}
---

# {task.model.type} of {Path(source).name}

A `{task.model.type}` of {parameters:,} parameters, trained for `{run.task and run.task.type}` by
Spectral Networks {__version__}. {began}

## Results

On data that training never saw, {when}, for one seed ({run.training.seed}):

| | |
|---|---|
{numbers}

![Learning curve](curve.png)

## Data

`{source}`

| part | size | SHA-256 |
|---|---|---|
{data}

## Use

```python
from spectral_models import load_checkpoint, load_tokenizer

model, tokenizer = load_checkpoint("PATH"), load_tokenizer("PATH")
```

```bash
{command}
```

PATH is the directory of this file.

## Training

```yaml
{yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False, allow_unicode=True).strip()}
```
"""
