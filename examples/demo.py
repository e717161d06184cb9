"""The main job from end to end: compose, train on real text, measure, save, reload, generate, swap a backend.

Run it with ``make demo``; everything it leaves behind is in runs/demo.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from rich.console import Console

from spectral_core import Request, fft_backend, list_fft_backends
from spectral_models import load_checkpoint
from spectral_models.cli.components import components
from spectral_models.data import ByteTokenizer
from spectral_models.training import load_run
from spectral_models.training.run import train

CONFIG = Path(__file__).with_name("demo.yaml")
OUT = Path("runs/demo")
console = Console()


def main() -> None:
    run = load_run(CONFIG)
    console.rule(f"1. train the model that {CONFIG.name} describes")
    shutil.rmtree(OUT, ignore_errors=True)
    result = train(run, OUT)
    parameters = sum(parameter.numel() for parameter in result.model.parameters())
    held_out = result.task.corpus.validation
    console.print(
        f"{parameters:,} parameters; {result.task.corpus.train_documents} files to train on, "
        f"{result.task.corpus.validation_documents} held out ({held_out.numel():,} bytes of them measured)"
    )

    console.rule("2. held-out bits per byte, on the same bytes")
    console.print(f"this model  {result.bits_per_byte:.3f}\nxz -9       {result.xz_bits_per_byte:.3f}")
    console.print(f"learning curve: {OUT}/curve.png; TensorBoard: tensorboard --logdir {OUT}/logs")

    console.rule("3. reload, and stream a sample")
    model = load_checkpoint(OUT)
    sample(model, "def read_config(path):\n")

    console.rule("4. swap the FFT backend by name")
    tokens = held_out[:2000].long()[None]
    with torch.no_grad():
        request = Request("convolution", "cpu", torch.float32, 1, 256, 2000, 2000, "causal", grad=False)
        here = [name for name in list_fft_backends() if not fft_backend(name).unsupported_reasons(request)]
        logits = {name: load_checkpoint(OUT, fft=name)(tokens).logits for name in here}
        reference = logits.pop("torch")
        for name, these in logits.items():
            console.print(f"{name:13} differs from torch by {difference(these, reference):.1e} (relative)")

        console.rule("5. one token at a time gives what one pass gives")
        state, pieces = None, []
        for token in tokens.split(1, dim=1):
            output = model(token, state=state, return_state=True)
            state = output.state
            pieces.append(output.logits)
    console.print(f"2,000 tokens: largest difference {difference(torch.cat(pieces, 1), reference):.1e} (relative)")

    console.rule("6. components, and who provides them")
    components(kind=None, as_json=False)


def sample(model: torch.nn.Module, prompt: str) -> None:
    tokenizer = ByteTokenizer()
    stream = tokenizer.stream()

    def show(token: torch.Tensor) -> None:
        print(stream.push(int(token)), end="", flush=True)

    print(prompt, end="")
    ids = torch.tensor([tokenizer.encode(prompt)])
    generator = torch.Generator().manual_seed(0)
    model.generate(ids, max_new_tokens=300, temperature=0.7, top_p=0.95, generator=generator, on_token=show)
    print(stream.finish())


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


if __name__ == "__main__":
    main()
