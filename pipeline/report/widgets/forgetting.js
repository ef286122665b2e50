"use strict";
// R[i, j]: each task's metric on test after each step, with its change since the task was learned. A tick: the metric
// is to the last bit what it was, as it is where a task's weights are frozen.
coppice.widget("forgetting", (root, data, page) => {
  const { tasks, steps, methods } = data;
  const every = methods.flatMap(({ cells }) => cells.flat()).map(({ change }) => Math.abs(change ?? 0));
  const end = Math.max(1, ...every);
  const strength = (change) => 0.75 * Math.min(1, Math.abs(change) / end);
  const colour = (change) => page.mix(change < 0 ? "var(--worse)" : "var(--better)", strength(change));
  const maps = page.html("div", { class: "maps" }, root);

  for (const method of methods) {
    const part = page.html("div", { class: "map" }, maps);
    page.html("b", {}, part, method.label);
    const at = (r, c) => method.cells[r][c];
    const state = (r, c) => (r === method.learned[c] ? "learned" : at(r, c).same ? "= ✓" : `${page.percent(at(r, c).change)} %`);
    page.grid(page.html("div", { class: "scroll" }, part), {
      label: `${method.label}: tasks after each step`,
      rows: steps.map((step) => `after ${step}`),
      columns: tasks.map(({ name }) => name),
      size: [62, 34],
      fill: (r, c) => (at(r, c).value === null ? null : r === method.learned[c] ? "var(--soft)" : colour(at(r, c).change ?? 0)),
      words: (r, c) => [page.number(at(r, c).value), state(r, c)],
      tip: (r, c) => [
        `${tasks[c].name} after ${steps[r]}`,
        `${tasks[c].metric}: ${page.number(at(r, c).value)} on test`,
        r === method.learned[c] ? "learned at this step" : at(r, c).same ? "to the last bit what it was when it was learned" : `${page.percent(at(r, c).change)} % since it was learned (${page.number(at(method.learned[c], c).value)})`,
      ],
    });
  }

  page.html("p", { class: "small" }, root, "= ✓: to the last bit what it was when the task was learned, as it must be where weights are frozen.");
  page.bar(root, {
    label: "change since learned",
    fill: (share) => colour(end * (2 * share - 1)),
    ticks: [[0, `${page.percent(-end)} %`], [0.5, "0"], [1, `${page.percent(end)} %`]],
  });
});
