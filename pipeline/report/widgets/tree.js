"use strict";
// One branch tree at a time: columns are locations, a bar is one copy of a block, as thick as it has parameters, in its
// task's colour where it has one task alone.
coppice.widget("tree", (root, data, page) => {
  const many = data.tasks.length > 12;
  const ROW = many ? 14 : 26;
  const TOP = 34;
  const state = { tree: Math.max(0, data.trees.findIndex(({ locations }) => locations.at(-1).length > 1)) };
  const costs = data.costs.params ?? null;
  const most = Math.max(...(costs ?? [1]));
  const thick = (d) => (costs ? Math.max(3, (ROW - 6) * (costs[d] / most)) : ROW / 3);

  const controls = page.html("div", { class: "controls" }, root);
  const options = data.trees.map((tree, index) => [String(index), tree.label]);
  page.choice(controls, { label: "tree", options, value: String(state.tree) }, (index) => {
    state.tree = Number(index);
    draw();
  });
  const words = page.html("p", { class: "small", "aria-live": "polite" }, root);
  const scroll = page.html("div", { class: "scroll" }, root);
  const bars = costs ? "A bar is as thick as its block has parameters, " : "A bar is one copy of a block, ";
  page.html("p", { class: "small" }, root, `${bars}in a task's colour where it is that task's alone. The number over a shared bar: the largest dissimilarity of two tasks in it. At the leaves: change against the single-task network.`);
  let width = 0;

  const names = (members) => members.map((t) => data.tasks[t]).join(", ");
  const colour = (members) => (members.length === 1 ? page.colours[data.tasks[members[0]]] : "var(--muted)");
  const about = (d, { tasks, apart }) => [
    `location ${d + 1}: ${names(tasks)}`,
    tasks.length > 1 ? `shared by ${tasks.length} tasks; the most unlike two of them: dissimilarity ${page.number(apart)}` : "one task alone",
    costs && `${page.count(costs[d])} parameters · ${page.count(data.costs.flops[d] / 2)} multiply-adds`,
  ];

  function draw() {
    const tree = data.trees[state.tree];
    page.write(words, `${tree.label}: ${page.count(tree.params)} parameters · ${page.count(tree.flops / 2)} multiply-adds · cost ${page.number(tree.cost)} · Δ_MTL ${page.percent(tree.delta)} % on test`);
    const leaf = 8 + 6.3 * Math.max(...data.tasks.map((name) => page.short(name).length)) + 70;
    const step = Math.max(76, (Math.max(width, 320) - leaf - 40) / tree.locations.length);
    const [across, down] = [40 + step * tree.locations.length + leaf, TOP + ROW * data.tasks.length + 8];
    const label = `${tree.label}: ${tree.locations.map((row) => row.map(({ tasks }) => names(tasks)).join(" | ")).join("; then ")}`;
    scroll.replaceChildren();
    const picture = page.svg("svg", { width: across, height: down, viewBox: `0 0 ${across} ${down}`, role: "group", "aria-label": label }, scroll);
    const edges = page.svg("g", { fill: "none", "aria-hidden": "true" }, picture);
    const y = (members) => TOP + ROW * (0.5 + members.reduce((sum, t) => sum + tree.order.indexOf(t), 0) / members.length);
    const every = tree.order;
    page.svg("rect", { x: 2, y: y(every) - 6, width: 12, height: 12, style: "fill:var(--ink)" }, picture);
    const ends = data.tasks.map(() => [14, y(every)]);
    const stops = tree.locations.map((row, d) => {
      const [start, end] = [40 + step * d, 40 + step * (d + 1) - 26];
      page.svg("text", { x: (start + end) / 2, y: 12, "text-anchor": "middle", "font-size": 12 }, picture, `location ${d + 1}`);
      page.svg("text", { x: (start + end) / 2, y: 26, "text-anchor": "middle", "font-size": 11, style: "fill:var(--muted)" }, picture, `${row.length} ${row.length > 1 ? "branches" : "branch"}`);
      return row.map((branch) => bar(picture, edges, { d, branch, start, end, y: y(branch.tasks), ends }));
    });
    stops.push(tree.order.map((t) => leafOf(picture, edges, tree.leaves[t], t, 40 + step * tree.locations.length, y([t]), ends[t])));
    page.arrows(stops, true);
  }

  function edge(edges, [x0, y0], [x1, y1], stroke, thickness) {
    const middle = (x0 + x1) / 2;
    page.svg("path", { d: `M${x0},${y0}C${middle},${y0} ${middle},${y1} ${x1},${y1}`, style: `stroke:${stroke}`, "stroke-width": thickness }, edges);
  }

  function bar(picture, edges, { d, branch, start, end, y, ends }) {
    const fill = colour(branch.tasks);
    edge(edges, ends[branch.tasks[0]], [start, y], fill, many ? 1 : 2);
    const node = page.svg("g", { class: "cell", role: "img" }, picture);
    const height = thick(d);
    page.svg("rect", { x: start, y: y - height / 2, width: end - start, height, rx: Math.min(4, height / 2), style: `fill:${fill}` }, node);
    page.svg("rect", { x: start, y: y - ROW / 2, width: end - start, height: ROW, style: "fill:transparent;stroke:none" }, node);
    if (branch.tasks.length > 1) {
      page.svg("text", { x: (start + end) / 2, y: y - height / 2 - 3, "text-anchor": "middle", "font-size": many ? 9 : 11, class: "halo" }, node, page.number(branch.apart));
    }
    branch.tasks.forEach((t) => (ends[t] = [end, y]));
    return page.told(node, () => about(d, branch));
  }

  function leafOf(picture, edges, { metric, value, change }, t, x, y, from) {
    const name = data.tasks[t];
    edge(edges, from, [x, y], page.colours[name], many ? 1 : 2);
    const node = page.svg("g", { class: "cell", role: "img" }, picture);
    page.svg("rect", { x, y: y - 5, width: 10, height: 10, style: `fill:${page.colours[name]}` }, node);
    const text = page.svg("text", { x: x + 15, y, "dominant-baseline": "central", "font-size": many ? 10 : 12 }, node, page.short(name));
    page.svg("tspan", { style: "fill:var(--muted)" }, text, ` ${page.percent(change)} %`);
    return page.told(node, () => [name, `${metric}: ${page.number(value)} on test`, `${page.percent(change)} % against its single-task network`]);
  }

  page.fit(root, (now) => {
    width = now;
    draw();
  });
});
