"""Modes of adapting a network with experts -> the paper's Table 3: what each trains, keeps, costs and reaches."""

from pipeline.report.cells import NONE, best_of, seed_words, task_heads, value_cell
from pipeline.report.chapter import Cell, PageTable
from pipeline.report.found_adapt import Adapt, Mode
from pipeline.report.mode_names import mode_name
from pipeline.report.number_texts import count_text, percent_text

SHARES = {"trained_params": "trained_share", "model_params": "params_share", "flops": "flops_share"}


def modes_table(adapt: Adapt) -> PageTable:
    """A line for each mode and one for the single-task networks: sizes, the metric on every task, mean, Δ_MTL."""
    mean = any(mode.mean is not None for mode in adapt.modes)
    sizes = [Cell(text="trained", small="parameters"), Cell(text="model", small="parameters")]
    sizes.append(Cell(text="multiply-adds", small="one image"))
    heads = [Cell(text="mean")] * mean + [Cell(text="Δ_MTL", small="% ↑")]
    lines = [[Cell(text=""), *sizes, *task_heads(adapt.tasks), *heads]]
    lines += [_line(adapt, mode, mean) for mode in adapt.modes]
    return PageTable(
        stem="adapt",
        title="Ways to adapt to each new data set, on test",
        caption=f"{seed_words(run.seed for run in adapt.runs)} Each number at the learning rate that was best on"
        " validation; it leads to its job. Parameters without the head, multiply-adds with it and on an image of"
        " the task's size, means over the tasks; beside them the share of full fine-tuning. What removes experts"
        " goes on from the network of the new router, so it learned for longer than the others. Bold: best of all"
        " that start from the network with experts. Single: each task's single-task network, against which Δ_MTL is"
        " measured, its parameters with the head.",
        lines=[*lines, _single_line(adapt, mean)],
        rows=[_record(adapt, mode) for mode in adapt.modes],
    )


def _line(adapt: Adapt, mode: Mode, mean: bool) -> list[Cell]:
    name = mode_name(mode.mode)
    cells = [Cell(text=name, small=mode.label if mode.label != name else "")]
    for size, share in SHARES.items():
        value, part = getattr(mode, size), getattr(mode, share)
        text = count_text(value / 2 if size == "flops" else value)
        cells.append(Cell(text=text, small="" if part is None else f"{100 * part:.1f} %"))
    for task, row in adapt.tasks.items():
        best = best_of((other.test[task] for other in adapt.modes), row.higher_is_better)
        cells.append(value_cell(mode.test[task], best, adapt.run[mode.runs[task]].job))
    if mean:
        rising = all(row.higher_is_better for row in adapt.tasks.values())
        cells.append(value_cell(mode.mean, best_of((other.mean for other in adapt.modes), rising)))
    delta = adapt.delta(mode)
    top = best_of(adapt.delta(other) for other in adapt.modes)
    return [*cells, NONE if delta is None else Cell(text=percent_text(delta), best=delta == top)]


def _single_line(adapt: Adapt, mean: bool) -> list[Cell]:
    """The single-task networks, all of whose parameters are trained."""
    count = len(adapt.tasks)
    params = Cell(text=count_text(sum(row.scratch_params for row in adapt.tasks.values()) / count))
    values = [row.scratch_test for row in adapt.tasks.values()]
    cells = [Cell(text="single"), params, params, NONE]
    cells += [value_cell(value, None) for value in values]
    return [*cells, *[value_cell(sum(values) / count, None)] * mean, Cell(text="0")]


def _record(adapt: Adapt, mode: Mode) -> dict:
    """A mode as a line of `tables/adapt.csv`."""
    sizes = {"trained_params": mode.trained_params, "model_params": mode.model_params}
    return (
        {"mode": mode.mode, "label": mode.label, **sizes, "multiply_adds": mode.flops / 2}
        | {share: getattr(mode, share) for share in SHARES.values()}
        | {f"{task} {row.metric}": mode.test[task] for task, row in adapt.tasks.items()}
        | {"mean": mode.mean, "delta_mtl": adapt.delta(mode)}
        | {"jobs": " ".join(adapt.run[mode.runs[task]].job for task in adapt.tasks)}
    )
