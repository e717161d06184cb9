"""Which block reads code best? Bits per byte of small models at equal parameters and equal tokens.

Every row is a run of :func:`spectral_models.training.run.train` on the ``stdlib`` corpus, byte by byte: four layers of
width 128, feed-forwards widened until all rows have as many parameters, 4096 tokens a step. A finished row is appended
to ``quality.json`` (and a CSV and a PNG are drawn from it); a run that was killed goes on from its last checkpoint.

    OMP_NUM_THREADS=1 python benchmarks/quality.py                      # all rows at 256, the five leading ones at 1024
    python benchmarks/quality.py --seeds 0 1 2 --rates 1e-3 2e-3 4e-3   # what a GPU affords
    python benchmarks/quality.py --table                                # the table of what is there
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import baselines
from matplotlib.figure import Figure
from records import Records, Row, parameters, sized

from spectral_models.data import DataConfig
from spectral_models.training import RunConfig, TrainingConfig
from spectral_models.training.run import train

MODEL = {"vocab_size": 256, "hidden_dim": 128, "num_layers": 4}
PARAMETERS = 900_000
TOKENS = 4096
HELD_OUT = 131_072
KEYS = ("name", "context", "seed", "rate", "steps")

FILTER = {"type": "implicit"}
HOLOGRAPHIC = {"type": "holographic", "phases": 64}
DECAYING = {**HOLOGRAPHIC, "decay": "per_token"}
DELTA = {**DECAYING, "update": "delta"}
GATED = {"type": "gated_convolution", "filter": FILTER}
UNFILTERED = {**GATED, "filter": "baselines/absent"}
ADVANCED = {"type": "spectral_gating", "gates": ["advanced"]}
ROWS: dict[str, list[Any]] = {
    "attention": [{"type": "baselines/attention"}],
    "attention, short convolution": [{"type": "baselines/attention", "short": True}],
    "gated_convolution / holographic": [GATED, HOLOGRAPHIC],
    "gated_convolution / holographic, decay per token": [GATED, DECAYING],
    "gated_convolution / holographic, delta rule": [GATED, DELTA],
    "holographic, delta rule / gated_convolution": [DELTA, GATED],
    "gated_convolution": [GATED],
    "gated_convolution, no long filter": [UNFILTERED],
    "gated_convolution, frozen long filter": [{**GATED, "filter": {"type": "baselines/frozen", "filter": FILTER}}],
    "gated_convolution, no long filter / holographic, decay per token": [UNFILTERED, DECAYING],
    "gated_convolution, no long filter / holographic, delta rule": [UNFILTERED, DELTA],
    "gated_convolution, resonant / holographic, delta rule": [
        {**GATED, "filter": {"type": "resonant", "modes": 16}}, DELTA,
    ],
    "spectral_gating": ["spectral_gating"],
    "spectral_product": ["spectral_product"],
    "gated_convolution / holographic, delta rule / spectral_gating, advanced / holographic, delta rule": [
        GATED, DELTA, ADVANCED, DELTA,
    ],
    "spectral_gating, advanced": [ADVANCED],
}  # fmt: skip
LEADING = (
    "attention",
    "attention, short convolution",
    "gated_convolution / holographic, delta rule",
    "gated_convolution, no long filter / holographic, delta rule",
    "gated_convolution, resonant / holographic, delta rule",
)


def run(name: str, context: int, seed: int, rate: float, steps: int, *, source: str, work: Path) -> Row:
    """Train one row, or the rest of it."""
    mixers = ROWS[name]
    config = sized(MODEL, mixers, PARAMETERS)
    described = RunConfig(
        model=config,
        data=DataConfig(source=source, context=context, validation_bytes=HELD_OUT),
        training=TrainingConfig(
            steps=steps, batch_size=TOKENS // context, learning_rate=rate, seed=seed,
            eval_every=max(1, steps // 4), save_every=max(1, steps // 10),
        ),
    )  # fmt: skip
    slug = "".join(letter if letter.isalnum() else "-" for letter in name)
    directory = work / f"{slug}-{context}-{seed}-{rate:g}-{steps}"
    result = train(described, directory, resume=directory.exists())
    return {
        "name": name,
        "context": context,
        "seed": seed,
        "rate": rate,
        "steps": steps,
        "bits_per_byte": result.bits_per_byte,
        "parameters": parameters(config),
        "tokens": steps * (TOKENS // context) * context,
        "corpus": result.task.corpus.source,
        "held_out_bytes": len(result.task.corpus.validation),
        "curve": [[row["step"], row["eval_bits_per_byte"]] for row in result.history if "eval_bits_per_byte" in row],
        "mixers": mixers,
    }


def best(rows: Sequence[Row]) -> dict[tuple[int, str], tuple[float, float, int]]:
    """Of each context and name: mean bits per byte over seeds at the best rate, that rate, and how many seeds."""
    found: dict[tuple[int, str], tuple[float, float, int]] = {}
    groups: dict[tuple[int, str, float, int], list[float]] = {}
    for row in rows:
        key = (row["context"], row["name"], row["rate"], row["steps"])
        groups.setdefault(key, []).append(row["bits_per_byte"])
    for (context, name, rate, _), values in groups.items():
        mean = statistics.fmean(values)
        if (context, name) not in found or mean < found[context, name][0]:
            found[context, name] = (mean, rate, len(values))
    return found


def table(rows: Sequence[Row]) -> str:
    """Markdown: bits per byte, and as a share of both attentions'. Rows that were not run are missing."""
    results = best(rows)
    lines = []
    for context in sorted({context for context, _ in results}):
        lines += [
            f"| context {context} | bits/byte | ÷ attention | ÷ with short convolution | rate | seeds |",
            "|---|---|---|---|---|---|",
        ]
        for name in ROWS:
            if (context, name) in results:
                bits, rate, seeds = results[context, name]
                rivals = [results.get((context, rival)) for rival in LEADING[:2]]
                ratios = " | ".join("–" if rival is None else f"{bits / rival[0]:.3f}" for rival in rivals)
                lines.append(f"| {name} | {bits:.3f} | {ratios} | {rate:g} | {seeds} |")
        lines.append("")
    return "\n".join(lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Learning curves, a panel for each context."""
    contexts = sorted({row["context"] for row in rows})
    figure = Figure(figsize=(7 * len(contexts), 5), layout="constrained")
    for axes, context in zip(figure.subplots(1, len(contexts), squeeze=False)[0], contexts, strict=True):
        for index, name in enumerate(ROWS):
            for row in rows:
                if (row["name"], row["context"]) == (name, context):
                    axes.plot(*zip(*row["curve"], strict=True), marker="o", markersize=3, color=f"C{index}", label=name)
        axes.set(xlabel="step", ylabel="bits per held-out byte", title=f"context {context}", yscale="log")
        axes.grid(alpha=0.3, which="both")
        handles, labels = axes.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        axes.legend(unique.values(), unique.keys(), fontsize=7)
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), metavar="NAME", help="only these, in this order")
    parser.add_argument("--contexts", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rates", nargs="+", type=float, default=[2e-3])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--source", default="stdlib", help="another corpus than the tables'")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--work", type=Path, default=Path("runs/quality"), help="where unfinished rows are kept")
    parser.add_argument("--table", action="store_true", help="print what is there, and run nothing")
    options = parser.parse_args(arguments)
    baselines.register()
    records = Records(options.out / "quality.json", KEYS)
    wanted = [
        (name, context, seed, rate)
        for context in options.contexts
        for seed in options.seeds
        for rate in options.rates
        for name in options.rows or (ROWS if context <= 256 else LEADING)
    ]
    for name, context, seed, rate in [] if options.table else wanted:
        if records.has(name=name, context=context, seed=seed, rate=rate, steps=options.steps):
            continue
        print(f"{name}, context {context}, seed {seed}, rate {rate:g}", flush=True)
        records.add(run(name, context, seed, rate, options.steps, source=options.source, work=options.work))
        draw(records.rows(), options.out / "quality.png")
    print(table(records.rows()))


if __name__ == "__main__":
    main()
