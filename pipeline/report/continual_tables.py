"""Tasks learned one after another -> the paper's Table 4, and how much each method forgets of those before."""

from statistics import mean

from pipeline.report.cells import NONE, best_of, task_heads, value_cell
from pipeline.report.chapter import Cell, PageTable
from pipeline.report.found_adapt import Adapt, Continual, Taught
from pipeline.report.number_texts import count_text, percent_text, value_text

EXPERTS = "experts"  # the method by which a new data set leaves all others' weights alone
SAME = "="  # for a metric that is to the last bit what it was


def continual_table(adapt: Adapt, continual: Continual) -> PageTable:
    """A line for each method: what a new task adds and trains, and every task's metric after the last; Table 4."""
    last = len(continual.steps) - 1
    sizes = [Cell(text="new", small="parameters"), Cell(text="trained", small="parameters")]
    lines = [[Cell(text=""), *sizes, *task_heads(continual.tasks)]]
    for method in continual.methods:
        cells = [Cell(text=method.label)]
        cells += [Cell(text=count_text(mean(counts))) for counts in (method.new_params, method.trained_params)]
        for task, row in continual.tasks.items():
            best = best_of((continual.value(other, last, task) for other in continual.methods), row.higher_is_better)
            job = _trainer(adapt, continual, method, task)
            cells.append(value_cell(continual.value(method, last, task), best, job))
        lines.append(cells)
    if full := adapt.full:
        jobs = {task: adapt.run[name].job for task, name in full.runs.items()}
        values = [value_cell(full.test.get(task), None, jobs.get(task, "")) for task in continual.tasks]
        lines.append([Cell(text="full", small="a network each"), NONE, NONE, *values])
    return PageTable(
        stem="continual",
        title="New data sets learned one after another, on test",
        caption=f"Every task after the last step, {_order(continual)}. Parameters of a new task, mean over the new"
        " ones, without its head. Bold: best of the methods that keep one network. Full: fine-tuned to each new task by"
        " itself.",
        lines=lines,
        rows=[
            {"method": method.method, "label": method.label, "new_params": mean(method.new_params)}
            | {"trained_params": mean(method.trained_params), "params": method.params[-1]}
            | {f"{task} {row.metric}": continual.value(method, last, task) for task, row in continual.tasks.items()}
            | {"jobs": " ".join(method.jobs)}
            for method in continual.methods
        ],
    )


def forgetting_table(adapt: Adapt, continual: Continual) -> PageTable:
    """For each method a line after each step: every task so far, with its change since it was learned."""
    lines = [[Cell(text=""), *task_heads(continual.tasks)]]
    for method in continual.methods:
        for step, name in enumerate(continual.steps):
            cells = [Cell(text=method.label, small=f"after {name}")]
            for task in continual.tasks:
                value, job = continual.value(method, step, task), _job(adapt, method, step)
                words = change_text(continual, method, step, task)
                cells.append(NONE if value is None else Cell(text=value_text(value), small=words, job=job))
            lines.append(cells)
    return PageTable(
        stem="forgetting",
        title="What learning the next data set does to those before",
        caption=f"Each task on test after each step, {_order(continual)}. Small: signed relative change since the task"
        f" was learned, in percent, plus is better; {SAME} where it is unchanged. A number leads to the step's"
        " job.",
        lines=lines,
        rows=forgetting_rows(adapt, continual),
    )


def change_text(continual: Continual, method: Taught, step: int, task: str) -> str:
    """What became of a task since it was learned: nothing, or how many percent; empty where there is nothing to say."""
    if continual.same(method, step, task):
        return SAME
    change = continual.change(method, step, task)
    return "" if change is None else percent_text(change)


def forgetting_rows(adapt: Adapt, continual: Continual) -> list[dict]:
    """Every known value of the forgetting matrices, one a row."""
    return [
        {"method": method.method, "step": step, "after": name, "task": task, "metric": row.metric, "test": value}
        | {"change": continual.change(method, step, task), "unchanged": continual.same(method, step, task)}
        | {"job": method.jobs[step - 1] if step else adapt.base.job}
        for method in continual.methods
        for step, name in enumerate(continual.steps)
        for task, row in continual.tasks.items()
        if (value := continual.value(method, step, task)) is not None
    ]


def _trainer(adapt: Adapt, continual: Continual, method: Taught, task: str) -> str:
    """The job that made a task's last weights: the last one where all of the network learns, else the task's own."""
    if method.method != EXPERTS:
        return _job(adapt, method, len(method.jobs))
    return _job(adapt, method, continual.new.index(task) + 1 if task in continual.new else 0)


def _order(continual: Continual) -> str:
    return f"learned in this order: {', '.join(continual.new)}"


def _job(adapt: Adapt, method: Taught, step: int) -> str:
    """The job of a step, where the page lists it."""
    job = method.jobs[step - 1] if step else adapt.base.job
    return job if job in adapt.listed else ""
