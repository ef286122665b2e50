"use strict";
// Small pictures of one network, 270 pixels wide, added to `page`; `tasks` are the names in the order of the study:
//   page.bars(parent, tasks, changes)      each task's change in percent, null where there is none
//   page.branches(parent, tasks, groups)   a branch tree: groups[location][task] is the branch of a task
//   page.strip(parent, label, rows)        rows {name, colour, cells} of shares between 0 and 1
Object.assign(coppice.page, (() => {
  const { svg, html, scale, percent, short, colours } = coppice.page;
  const WIDTH = 270;
  const NAMED = 14; // rows up to which they bear names
  const LEFT = 104; // the room of those names

  function sketch(parent, height, label) {
    return svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, width: WIDTH, height, role: "img", "aria-label": label }, parent);
  }

  function bars(parent, tasks, changes) {
    const many = tasks.length > NAMED;
    const order = tasks.map((_, t) => t).filter((t) => changes[t] !== null);
    if (!order.length) return;
    if (many) order.sort((a, b) => changes[b] - changes[a]);
    const step = many ? 5 : 15;
    const known = order.map((t) => changes[t]);
    const x = scale([Math.min(0, ...known), Math.max(0, ...known)], many ? [4, WIDTH - 4] : [LEFT, WIDTH - 44]);
    const words = order.map((t) => `${tasks[t]} ${percent(changes[t])} %`);
    const root = sketch(parent, order.length * step + 4, `Change by task: ${words.join(", ")}`);
    order.forEach((t, row) => {
      const [from, to, y] = [x(Math.min(0, changes[t])), x(Math.max(0, changes[t])), row * step + 2];
      svg("rect", { x: from, y: y + 1, width: Math.max(1, to - from), height: step - 2, style: `fill:${colours[tasks[t]]}` }, root);
      if (many) return;
      svg("text", { x: 0, y: y + 11, "font-size": 11 }, root, short(tasks[t], 16));
      svg("text", { x: WIDTH, y: y + 11, "font-size": 11, "text-anchor": "end" }, root, percent(changes[t]));
    });
    svg("line", { x1: x(0), x2: x(0), y1: 0, y2: order.length * step + 4, style: "stroke:var(--ink)" }, root);
    if (many) html("div", { class: "small" }, parent, `from ${words[0]} to ${words[words.length - 1]}`);
  }

  function branches(parent, tasks, groups) {
    const many = tasks.length > NAMED;
    const [step, end] = [many ? 4 : 14, many ? 250 : 150];
    // Branches only part, so tasks in the order of their branches stand together at every location.
    const apart = (a, b) => groups.map((row) => row[a] - row[b]).find((gap) => gap !== 0) ?? a - b;
    const order = tasks.map((_, t) => t).sort(apart);
    const rows = tasks.map((_, t) => (order.indexOf(t) + 0.5) * step + 2);
    const column = (d) => 6 + (d / groups.length) * (end - 12);
    const middle = (members) => members.reduce((sum, t) => sum + rows[t], 0) / members.length;
    const label = `Branches at each location: ${groups.map((row) => new Set(row).size).join(", ")}`;
    const root = sketch(parent, step * tasks.length + 4, label);
    const curve = (from, to, style) => {
      const half = (from[0] + to[0]) / 2;
      const d = `M${from}C${half},${from[1]} ${half},${to[1]} ${to}`;
      svg("path", { d, fill: "none", "stroke-width": many ? 1 : 2.5, style: `stroke:${style}` }, root);
    };
    let before = tasks.map(() => middle(order));
    groups.forEach((row, d) => {
      const members = (t) => order.filter((other) => row[other] === row[t]);
      const now = tasks.map((_, t) => middle(members(t)));
      order.forEach((t) => curve([column(d), before[t]], [column(d + 1), now[t]], members(t).length === 1 ? colours[tasks[t]] : "var(--muted)"));
      before = now;
    });
    order.forEach((t) => {
      const size = many ? 3 : 8;
      svg("line", { x1: end - 6, x2: end, y1: before[t], y2: rows[t], style: `stroke:${colours[tasks[t]]}` }, root);
      svg("rect", { x: end, y: rows[t] - size / 2, width: many ? 12 : 8, height: size, style: `fill:${colours[tasks[t]]}` }, root);
      if (!many) svg("text", { x: end + 13, y: rows[t] + 4, "font-size": 11 }, root, short(tasks[t], 16));
    });
  }

  function strip(parent, label, rows) {
    const many = rows.length > NAMED;
    const [step, left] = many ? [5, 0] : [14, LEFT];
    const size = (WIDTH - left) / Math.max(...rows.map(({ cells }) => cells.length));
    const root = sketch(parent, rows.length * step + 2, label);
    rows.forEach(({ name, colour, cells }, r) => {
      const [y, height] = [r * step + 1, step - 2];
      if (!many) svg("text", { x: 0, y: y + 10, "font-size": 11 }, root, short(name, 16));
      svg("rect", { x: left, y, width: size * cells.length, height, style: "fill:var(--line)" }, root);
      cells.forEach((share, c) => {
        if (share > 0) svg("rect", { x: left + c * size, y, width: Math.max(0.6, size - 0.4), height, "fill-opacity": Math.min(1, share).toFixed(3), style: `fill:${colour}` }, root);
      });
    });
  }

  return { bars, branches, strip };
})());
