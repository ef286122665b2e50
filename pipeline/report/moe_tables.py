"""Networks with experts and what they are compared with -> the paper's Table 1, and what experts tell of data sets."""

from statistics import mean

from pipeline.report.cells import best_of, seed_words, task_heads, value_cell
from pipeline.report.chapter import Cell, PageTable
from pipeline.report.found_moe import Moe, Run
from pipeline.report.number_texts import count_text, percent_text


def methods_table(moe: Moe) -> PageTable:
    """A line for each method: parameters, multiply-adds, its metric on every task, Δ_MTL; paper Table 1."""
    best = {
        task: best_of((run.test[task] for run in moe.runs), row.higher_is_better) for task, row in moe.tasks.items()
    }
    top = max(run.delta_mtl for run in moe.runs)
    sizes = [Cell(text="parameters"), Cell(text="multiply-adds", small="one image")]
    lines = [[Cell(text=""), *sizes, *task_heads(moe.tasks), Cell(text="Δ_MTL", small="% ↑")]]
    for run in moe.runs:
        cells = [Cell(text=run.label, small="chosen" if run is moe.chosen else "")]
        cells += [Cell(text=count_text(run.params)), Cell(text=count_text(run.flops / 2))]
        cells += [value_cell(run.test[task], best[task], moe.job(run, task)) for task in moe.tasks]
        lines.append([*cells, Cell(text=percent_text(run.delta_mtl), best=run.delta_mtl == top)])
    return PageTable(
        stem="moe",
        title="Networks with experts and what they are compared with, on test",
        caption=f"{seed_words(run.seed for run in moe.runs)} λ chosen on validation. A number leads to its job. Where"
        " each task has a network of its own, parameters are those of all together. Multiply-adds are those of one task"
        " on an image of its size, the mean over tasks. Bold: best of all.",
        lines=lines,
        rows=[_record(moe, run) for run in moe.runs],
    )


def information_table(moe: Moe) -> PageTable:
    """For each λ and layer I(expert; data set), and the most that it can be."""
    most = f"{moe.most_information:.3f}"
    heads = [Cell(text=layer.name, small=f"location {layer.location}") for layer in moe.layers]
    lines = [[Cell(text=""), *heads, Cell(text="mean")]]
    for run in moe.by_lam:
        cells = [Cell(text=f"{value:.3f}", job=run.jobs[0]) for value in [*run.mi, mean(run.mi)]]
        lines.append([Cell(text=run.label, small="chosen" if run is moe.chosen else ""), *cells])
    lines.append([Cell(text="at most", small=f"log {len(moe.datasets)}"), *[Cell(text=most)] * (len(moe.layers) + 1)])
    return PageTable(
        stem="moe_information",
        title="What an expert tells of the data set",
        caption="Mutual information of expert and data set in nats, from the routers' mean probabilities on validation"
        " images, every data set weighing the same. 0: all data sets use the experts alike; at most: each expert"
        " belongs to one data set.",
        lines=lines,
        rows=[
            {"name": run.name, "lam": run.lam, "layer": layer.name, "location": layer.location, "information": value}
            | {"most": moe.most_information, "job": run.jobs[0]}
            for run in moe.by_lam
            for layer, value in zip(moe.layers, run.mi, strict=True)
        ],
    )


def _record(moe: Moe, run: Run) -> dict:
    """A method as a line of `tables/moe.csv`."""
    return (
        {"name": run.name, "label": run.label, "method": run.method, "lam": run.lam}
        | {"params": run.params, "multiply_adds": run.flops // 2}
        | {f"{task} {row.metric}": run.test[task] for task, row in moe.tasks.items()}
        | {"delta_mtl": run.delta_mtl, "delta_mtl_val": run.delta_mtl_val, "chosen": run is moe.chosen}
        | {"jobs": " ".join(run.jobs)}
    )
