"use strict";
// Affinity of all pairs of tasks, a map for each location. `data.maps[d]` has a value for each pair, by rows of the
// upper triangle; the chosen tree orders the tasks and frames those that run through one branch.
coppice.widget("affinity", (root, data, page) => {
  const MANY = 12; // tasks from which on one location is shown at a time
  const count = data.tasks.length;
  const many = count > MANY;
  const all = data.maps.flatMap((map) => map.value).filter((value) => value !== null);
  const [least, most] = many ? [Math.min(...all), Math.max(...all)] : [Math.min(0, ...all), 1];
  const share = page.scale([least, most], [0.04, 0.7]);
  const locations = data.maps.map((_, d) => d);
  const leaves = (tree) => data.tasks.map((_, t) => t).sort((a, b) => {
    const row = tree?.groups.find((groups) => groups[a] !== groups[b]);
    return row ? row[a] - row[b] : a - b;
  });
  const two = (value) => (Math.abs(value) < 0.005 ? "0.00" : value.toFixed(2).replace("-", "−"));
  const pair = (a, b) => {
    const [i, j] = a < b ? [a, b] : [b, a];
    return i * count - (i * (i + 1)) / 2 + (j - i - 1);
  };
  const state = { tree: data.trees.findIndex(({ groups }) => new Set(groups.at(-1)).size > 1), location: count > MANY ? locations.at(-1) : null };

  const controls = page.html("div", { class: "controls" }, root);
  const options = [["-1", "none"], ...data.trees.map((tree, index) => [String(index), tree.label])];
  page.choice(controls, { label: "branches of the tree", options, value: String(state.tree) }, (index) => {
    state.tree = Number(index);
    draw();
  });
  if (many) {
    page.slider(controls, { label: "location", values: locations, value: state.location, text: (d) => `${d + 1} of ${locations.length}` }, (d) => {
      state.location = d;
      draw();
    });
  }
  const maps = page.html("div", { class: "maps" }, root);
  const colour = (value) => page.mix("var(--heat)", share(value));
  page.bar(root, {
    label: "affinity (Spearman)",
    fill: (at) => colour(least + at * (most - least)),
    ticks: page.ticks(least, most, 5).map((value) => [(value - least) / (most - least || 1), two(value)]),
  });
  page.legend(root, [
    [(sign) => page.svg("rect", { x: 2, y: 2, width: 10, height: 10, style: "fill:none;stroke:var(--ink);stroke-width:2" }, sign), "tasks that share a branch of the chosen tree"],
    [(sign) => page.svg("rect", { width: 14, height: 14, fill: page.hatch(sign) }, sign), "not above the permutation null"],
  ]);

  function about(d, a, b) {
    const [map, at] = [data.maps[d], pair(a, b)];
    const tree = data.trees[state.tree];
    const apart = tree?.groups.findIndex((groups) => groups[a] !== groups[b]);
    return [
      `${data.tasks[a]} and ${data.tasks[b]}`,
      `location ${d + 1}: ${page.number(map.value[at])}`,
      data.interval && `bootstrap interval over images ${page.number(map.ci_low[at])} to ${page.number(map.ci_high[at])}`,
      `shuffled images reach ${page.number(map.null_high[at])}`,
      tree && (apart < 0 ? `${tree.label}: together at every location` : `${tree.label}: apart from location ${apart + 1} on`),
    ];
  }

  function draw() {
    const tree = data.trees[state.tree];
    const order = leaves(tree);
    const names = order.map((t) => data.tasks[t]);
    const size = many ? [14, 14] : count > 6 ? [38, 30] : [46, 36];
    maps.replaceChildren();
    for (const d of many ? [state.location] : locations) {
      const part = page.html("div", { class: "map" }, maps);
      page.html("b", {}, part, `location ${d + 1}${tree ? ` · ${tree.label}` : ""}`);
      const inside = page.html("div", { class: "scroll" }, part);
      const map = data.maps[d];
      const grid = page.grid(inside, {
        label: `affinity of pairs of tasks at location ${d + 1}`,
        rows: names,
        columns: names,
        size,
        fill: (r, c) => (r === c || map.value[pair(order[r], order[c])] === null ? null : colour(map.value[pair(order[r], order[c])])),
        words: many ? () => null : (r, c) => [two(map.value[pair(order[r], order[c])])],
        tip: (r, c) => about(d, order[r], order[c]),
      });
      mark(grid, d, order, tree);
    }
  }

  // Slanting lines where the null is not exceeded, frames around neighbours that share a branch.
  function mark(grid, d, order, tree) {
    const over = page.svg("g", { "pointer-events": "none", "aria-hidden": "true" }, grid.svg);
    const map = data.maps[d];
    const lines = page.hatch(grid.svg);
    order.forEach((a, r) => order.forEach((b, c) => {
      if (r !== c && map.value[pair(a, b)] <= map.null_high[pair(a, b)]) page.svg("rect", { ...grid.box(r, c), fill: lines, opacity: 0.45 }, over);
    }));
    if (!tree) return;
    const groups = order.map((t) => tree.groups[d][t]);
    for (let first = 0, next; first < count; first = next) {
      for (next = first; next < count && groups[next] === groups[first]; next += 1);
      const { x, y, width, height } = grid.box(first, first);
      const [w, h] = [width * (next - first), height * (next - first)];
      page.svg("rect", { x, y, width: w, height: h, rx: 3, style: "fill:none;stroke:var(--ink);stroke-width:2" }, over);
    }
  }

  draw();
});
