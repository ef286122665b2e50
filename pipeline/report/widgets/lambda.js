"use strict";
// TAPS over λ: metric, task-specific layers and additional parameters, a line and a mark of its own for each task.
coppice.widget("lambda", (root, data, page) => {
  const { tasks, titles } = data;
  const lams = [...new Set(tasks.flatMap(({ points }) => points.map(({ lam }) => lam)))].sort((a, b) => a - b);
  const some = lams.filter((lam) => lam > 0);
  const [LEFT, RIGHT, TOP, BOTTOM] = [48, 14, 26, 40];
  const state = { alone: "" };

  const controls = page.html("div", { class: "controls" }, root);
  page.choice(controls, { label: "tasks", options: [["", "all"], ...tasks.map(({ name }) => [name, name])], value: "" }, (name) => {
    state.alone = name;
    draw();
  });
  const plots = page.html("div", { class: "maps" }, root);
  const mark = (parent, place, x, y, size, colour) => page.svg("path", { d: shape(place, size), transform: `translate(${x},${y})`, style: `fill:${colour};stroke:var(--paper);stroke-width:1` }, parent);
  page.legend(root, tasks.map(({ name, metric }, place) => [(sign) => mark(sign, place, 7, 7, 5, page.colours[name]), `${name} (${metric})`]));

  function shape(place, s) {
    const marks = [
      `M${-s},${-s}H${s}V${s}H${-s}Z`, `M0,${-1.3 * s}L${1.3 * s},0L0,${1.3 * s}L${-1.3 * s},0Z`, `M0,${-1.2 * s}L${1.2 * s},${s}H${-1.2 * s}Z`,
      `M0,${1.2 * s}L${1.2 * s},${-s}H${-1.2 * s}Z`, `M${-s},0A${s},${s} 0 1 1 ${s},0A${s},${s} 0 1 1 ${-s},0Z`,
      `M${-s / 2.5},${-s}H${s / 2.5}V${-s / 2.5}H${s}V${s / 2.5}H${s / 2.5}V${s}H${-s / 2.5}V${s / 2.5}H${-s}V${-s / 2.5}H${-s / 2.5}Z`,
    ];
    return marks[place % marks.length];
  }

  // λ = 0 has no logarithm: it stands at the left, before a gap in the axis.
  function across(width) {
    const start = LEFT + (lams[0] === 0 && some.length ? 34 : 0);
    const log = page.scale([some[0] ?? 1, some.at(-1) ?? 1], [start + 10, width - RIGHT - 10], true);
    return (lam) => (lam > 0 ? log(lam) : LEFT + 10);
  }

  function plot(key, title, width, height) {
    const picture = page.svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${title} by λ` }, plots);
    const shown = tasks.filter(({ name }) => !state.alone || name === state.alone);
    const values = tasks.flatMap(({ points }) => points.map((point) => point[key])).filter((value) => value !== null);
    const [least, most] = [key === "quality" ? Math.min(...values) : 0, Math.max(...values)];
    const y = page.scale([least, most === least ? least + 1 : most], [height - BOTTOM - 8, TOP + 8]);
    const x = across(width);
    page.svg("text", { x: 4, y: 14, "font-size": 12, "font-weight": 600 }, picture, title);
    for (const value of page.ticks(least, most, 4)) {
      page.svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), style: "stroke:var(--line)" }, picture);
      page.svg("text", { x: LEFT - 6, y: y(value), "text-anchor": "end", "dominant-baseline": "central", "font-size": 11 }, picture, String(value).replace("-", "−"));
    }
    lams.forEach((lam, index) => {
      const near = index && x(lam) - x(lams[index - 1]) < 26;
      if (!near) page.svg("text", { x: x(lam), y: height - BOTTOM + 14, "text-anchor": "middle", "font-size": 11 }, picture, String(lam));
    });
    page.svg("text", { x: (LEFT + width - RIGHT) / 2, y: height - 6, "text-anchor": "middle", "font-size": 11 }, picture, "λ");
    page.svg("line", { x1: LEFT, x2: width - RIGHT, y1: height - BOTTOM, y2: height - BOTTOM, style: "stroke:var(--muted)" }, picture);
    if (lams[0] === 0 && some.length) page.svg("path", { d: `M${LEFT + 24},${height - BOTTOM + 5}l5,-10m4,0l-5,10`, style: "fill:none;stroke:var(--muted)" }, picture);
    page.arrows(shown.map((task) => line(picture, task, key, x, y)));
  }

  function line(picture, task, key, x, y) {
    const known = task.points.filter((point) => point[key] !== null);
    const colour = page.colours[task.name];
    page.svg("polyline", { points: known.map((point) => `${x(point.lam)},${y(point[key])}`).join(" "), style: `fill:none;stroke:${colour};stroke-width:2` }, picture);
    return known.map((point) => {
      const node = page.svg("g", { class: "cell", role: "img" }, picture);
      mark(node, tasks.indexOf(task), x(point.lam), y(point[key]), point.chosen ? 6.5 : 4, colour);
      return page.told(node, () => [
        `${task.name}, λ = ${point.lam}${point.chosen ? ", chosen on validation" : ""}`,
        `${task.metric}: ${page.number(point.test)} on test`,
        `${point.layers.toFixed(1)} % of the layers its own`,
        `${point.params.toFixed(1)} % additional parameters`,
      ]);
    });
  }

  let width = 0;
  function draw() {
    const each = Math.max(250, width >= 760 ? Math.floor((width - 36) / 3) : Math.min(width, 460));
    plots.replaceChildren();
    for (const [key, title] of Object.entries(titles)) plot(key, title, each, 250);
  }
  page.fit(root, (now) => {
    width = now;
    draw();
  });
});
