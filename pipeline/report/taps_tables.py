"""Runs of TAPS and of what it is compared with -> the paper's Table 4 (results) and Table 8 (what tasks add)."""

from collections.abc import Mapping

from pipeline.report.cells import NONE, best_of, seed_words, task_heads, value_cell
from pipeline.report.chapter import Cell, PageTable
from pipeline.report.found_taps import Method, Taps
from pipeline.report.number_texts import value_text

MEGA = 1e6  # bytes of a megabyte


def methods_table(taps: Taps) -> PageTable:
    """A line for each method: its metric on every task, mean, S-score, total parameters, storage; paper Table 4."""
    best = {
        task: best_of((m.test.get(task) for m in taps.methods), row.higher_is_better)
        for task, row in taps.tasks.items()
    }
    sums = [Cell(text=name, small=small) for name, small in _sums(taps).values()]
    lines = [[Cell(text=""), *task_heads(taps.tasks), *sums]]
    for row in taps.methods:
        cells = [Cell(text=row.label)]
        for task in taps.tasks:
            run = taps.of(row, task)
            cells.append(value_cell(row.test.get(task), best[task], run.job if run else ""))
        lines.append(cells + [_sum_cell(taps, row, key) for key in _sums(taps)])
    return PageTable(
        stem="taps",
        title="TAPS and what it is compared with, on test",
        caption=f"{seed_words(run.seed for run in taps.runs)} Each number at the learning rate that was best on"
        " validation; λ chosen: also at the λ that was. A number leads to its job. Parameters: all tasks together, in"
        " multiples of the base network, counted as the paper does (1 + the additional shares); MB: on disk."
        f"{_score_words(taps)} Bold: best of all.",
        lines=lines,
        rows=[_record(taps, row) for row in taps.methods],
    )


def shares_table(taps: Taps) -> PageTable:
    """For each λ what each task adds: % additional parameters and % task-specific layers; paper Table 8."""
    heads = [Cell(text=""), *(Cell(text=task, task=task) for task in taps.tasks)]
    lines = [heads]
    for row in taps.by_lam:
        runs = [taps.of(row, task) for task in taps.tasks]
        params = [Cell(text=f"{100 * run.params_share:.2f}", job=run.job) if run else NONE for run in runs]
        layers = [Cell(text=_percent(run.layers_share), job=run.job) if run else NONE for run in runs]
        lines.append([Cell(text=f"λ {row.lam:g}", small="% additional parameters"), *params])
        lines.append([Cell(text=f"λ {row.lam:g}", small="% task-specific layers"), *layers])
    keys = ("task", "lam", "lr", "layers_share", "params_share", "own_params", "bytes", "name", "job")
    return PageTable(
        stem="taps_shares",
        title="What each task adds to the base network",
        caption=f"Of {len(taps.layers)} gated layers. Normalisation layers are a task's own at every λ, so it adds"
        " parameters even where no layer is its own.",
        lines=lines,
        rows=[
            {key: getattr(run, key) for key in keys}
            for row in taps.by_lam
            for task in taps.tasks
            if (run := taps.of(row, task))
        ],
    )


def _sums(taps: Taps) -> Mapping[str, tuple[str, str]]:
    """The columns after the tasks: field, name, small print. A mean of different metrics would mean nothing."""
    columns = {"mean": ("mean", ""), "s_score": ("S-score", "↑")}
    columns |= {"multiple": ("parameters", "× base"), "bytes": ("storage", "MB")}
    left_out = set()
    if not taps.one_metric:
        left_out.add("mean")
    if all(row.s_score is None for row in taps.methods):
        left_out.add("s_score")
    return {key: words for key, words in columns.items() if key not in left_out}


def _sum_cell(taps: Taps, row: Method, key: str) -> Cell:
    value = getattr(row, key)
    if value is None:
        return NONE
    texts = {"mean": value_text, "s_score": "{:,.0f}".format, "multiple": "{:.2f}×".format}
    text = f"{value / MEGA:.2f}" if key == "bytes" else texts[key](value)
    rising = key != "mean" or all(target.higher_is_better for target in taps.tasks.values())
    best = best_of((getattr(method, key) for method in taps.methods), rising)
    return Cell(text=text, best=key in ("mean", "s_score") and value == best)


def _record(taps: Taps, row: Method) -> dict:
    """A method as a line of `tables/taps.csv`, with the jobs of its numbers."""
    runs = [taps.of(row, task) for task in taps.tasks]
    return (
        {"method": row.method, "lam": row.lam, "label": row.label}
        | {f"{task} {target.metric}": row.test.get(task) for task, target in taps.tasks.items()}
        | {key: getattr(row, key) for key in _sums(taps)}
        | {"jobs": " ".join(run.job if run else "–" for run in runs)}
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def _score_words(taps: Taps) -> str:
    if all(row.s_score is None for row in taps.methods):
        return ""
    return (
        " S-score: sum over tasks of 1,000 · (max(0, E − e) / E)², with e the error and E twice a reference error, by"
        " default that of fine-tuning."
    )
