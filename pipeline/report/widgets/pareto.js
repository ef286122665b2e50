"use strict";
// Every network against what it costs. A budget picks the best network on validation that it allows, and the next one.
coppice.widget("pareto", (root, data, page) => {
  const { svg, html } = page;
  const groups = [...new Set(data.points.map(({ group }) => group))];
  const printed = data.published ?? []; // what a paper prints; it is compared with, never chosen
  const state = { axis: "params", budget: 0, width: 0 };

  const cost = (point) => point[state.axis];
  const cheaper = (one, other) => cost(one) - cost(other) || other.test - one.test;
  const front = () => {
    let most = -Infinity;
    return [...data.points].sort(cheaper).filter(({ test }) => test > most && ((most = test), true));
  };
  const within = (budget) =>
    data.points.filter((point) => cost(point) <= budget * (1 + 1e-9)).sort((one, other) => other.val - one.val || one.params - other.params);

  const seconds = (x) => `${x < 10 ? x.toFixed(1) : Math.round(x).toLocaleString("en")} s`;
  const amount = (x) => (state.axis === "seconds" ? `${seconds(x)} of training` : `${page.count(x)} ${data.axes[state.axis]}`);
  const delta = (point) => `${page.percent(point.test)}${point.spread === null ? "" : ` ± ${point.spread.toFixed(1)}`} %`;
  const chance = (one, other) => {
    if (data.noise.factor === null) return "nothing says whether that is more than chance";
    const least = data.noise.factor * Math.sqrt(1 / one.seeds + 1 / other.seeds);
    return `${Math.abs(one.test - other.test) <= least ? "within" : "more than"} noise, ${least.toFixed(1)} points`;
  };

  const SIGNS = [
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z", "M0,-6L6,0L0,6L-6,0z", "M0,-6L6,5L-6,5z", "M-4.7,-4.7h9.4v9.4h-9.4z", "M0,6L6,-5L-6,-5z",
    "M-2,-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z", "M0,-6L5.7,-1.9L3.5,4.9L-3.5,4.9L-5.7,-1.9z", "M-6,-6L0,-2L6,-6L2,0L6,6L0,2L-6,6L-2,0z",
  ];
  const HEXAGON = "M5.5,0L2.75,4.8L-2.75,4.8L-5.5,0L-2.75,-4.8L2.75,-4.8z";
  const FULL = "fill:var(--ink);stroke:var(--ink)";
  const HOLLOW = "fill:var(--paper);stroke:var(--muted)";
  const sign = (group) => SIGNS[groups.indexOf(group) % SIGNS.length];

  function card(point, role = "") {
    const box = html("div", { class: "card" });
    if (role) html("div", { class: "kind" }, box, role);
    html("b", {}, box, point.label);
    html("div", {}, box, `Δ_MTL ${delta(point)} on test, ${page.percent(point.val)} % on validation`);
    const costs = [`${page.count(point.params)} parameters`, `${page.count(point.macs)} multiply-adds`, `${seconds(point.seconds)} of training`];
    html("div", { class: "small" }, box, [...costs, point.seeds === 1 ? "one seed" : `${point.seeds} seeds`].join(" · "));
    page.bars(box, data.tasks, point.changes);
    sketch(box, point.sketch);
    const runs = html("div", { class: "small" }, box, point.jobs.length === 1 ? "run " : "runs ");
    for (const job of point.jobs.slice(0, 6)) {
      html("a", { href: page.link(job) }, runs, job.slice(0, 8));
      runs.append(" ");
    }
    if (point.jobs.length > 6) runs.append(`and ${point.jobs.length - 6} more`);
    return box;
  }

  function sketch(box, { tree, layers, experts, datasets }) {
    if (tree) page.branches(box, data.tasks, tree);
    if (layers) {
      const rows = Object.entries(layers).map(([name, cells]) => ({ name, cells, colour: page.colours[name] }));
      const own = rows.map(({ name, cells }) => `${name} ${cells.filter(Boolean).length} of ${cells.length}`);
      html("div", { class: "small" }, box, "layers of its own for each task, from input to output");
      page.strip(box, `Layers of their own: ${own.join(", ")}`, rows);
    }
    if (experts) {
      const most = Math.max(...experts.flat(2));
      const rows = datasets.map((name, m) => ({ name, colour: "var(--accent)", cells: experts.flatMap((layer) => layer[m].map((share) => share / most)) }));
      const words = `experts, ${experts.length} layers of ${experts[0][0].length}: the stronger, the more chosen`;
      html("div", { class: "small" }, box, words);
      page.strip(box, words, rows);
    }
  }

  const controls = html("div", { class: "controls" }, root);
  page.choice(controls, { label: "cost", options: Object.entries(data.axes), value: state.axis }, (axis) => {
    state.axis = axis;
    slide();
  });
  const place = html("div", {}, controls);
  const words = html("p", { class: "verdict", "aria-live": "polite" }, root);
  const chart = html("div", { class: "scroll" }, root);
  const drawn = (d, style) => (picture) => svg("path", { d, transform: "translate(7,7)", style }, picture);
  page.legend(root, [
    ...groups.map((group) => [drawn(sign(group), FULL), group]),
    [drawn(sign(groups[0]), HOLLOW), "hollow: a smaller one did as well on test"],
    ...(printed.length ? [[drawn(HEXAGON, "fill:none;stroke:var(--caution)"), "printed in the paper"]] : []),
    ...(data.others.length ? [[(picture) => svg("circle", { cx: 7, cy: 7, r: 2.5, style: "fill:var(--muted)" }, picture), "other trees that were trained"]] : []),
  ]);
  const cards = html("div", { class: "cards" }, root);

  function slide() {
    const asked = new Map(data.budgets.filter((budget) => budget[state.axis]).map((budget) => [budget[state.axis], budget.label]));
    const values = [...new Set([...data.points.map(cost), ...asked.keys()])].sort((one, other) => one - other);
    state.budget = [...asked.keys()][0] ?? values[values.length - 1];
    place.replaceChildren();
    const text = (x) => `at most ${amount(x)}${asked.has(x) ? ` (budget ${asked.get(x)})` : ""}`;
    page.slider(place, { label: "budget", values, value: state.budget, text }, (budget) => {
      state.budget = budget;
      draw();
    });
    draw();
  }

  function verdict(best, second) {
    if (!best) return "Nothing that was trained is so small.";
    let text = `Best on validation is ${best.label}: Δ_MTL ${delta(best)} on test. `;
    if (second) {
      const gap = best.test - second.test;
      text += `Runner-up ${second.label}: ${Math.abs(gap).toFixed(1)} points ${gap < 0 ? "ahead on test" : "behind"} (${chance(best, second)}). `;
    }
    const [less] = within(0.9 * state.budget);
    if (!less) return `${text}At −10 % of this budget nothing fits.`;
    if (less === best) return `${text}At −10 % of this budget you lose nothing: it still fits.`;
    const loss = best.test - less.test;
    return `${text}At −10 % of this budget you ${loss < 0 ? "gain" : "lose"} ${Math.abs(loss).toFixed(1)} points, with ${less.label} (${chance(best, less)}).`;
  }

  function draw() {
    const [best, second] = within(state.budget);
    page.write(words, verdict(best, second));
    cards.replaceChildren(...[best && card(best, "best on validation"), second && card(second, "runner-up")].filter(Boolean));
    const at = axes();
    const leaders = front();
    const line = leaders.map((point) => [at.x(cost(point)), at.y(point.test)]).join("L");
    svg("path", { d: `M${line}`, fill: "none", style: "stroke:var(--muted)" }, at.picture);
    for (const other of data.others.filter((other) => cost(other))) {
      svg("circle", { cx: at.x(cost(other)), cy: at.y(other.test), r: 2.5, opacity: 0.6, style: "fill:var(--muted)" }, at.picture);
    }
    for (const mark of printed.filter((mark) => cost(mark))) paper(at, mark);
    const order = [...data.points].sort(cheaper);
    page.arrows([order.map((point) => dot(at, point, leaders.includes(point), [best, second].indexOf(point)))]);
  }

  // The frame with its ticks, and how values become places.
  function axes() {
    const [width, height] = [Math.max(320, state.width), state.width < 560 ? 320 : 400];
    const [left, right, top, bottom] = [46, width - 14, 12, height - 42];
    const all = [...data.points, ...data.others, ...printed].filter((point) => cost(point));
    const xs = all.map(cost);
    const [low, high] = [Math.min(...xs), Math.max(...xs)];
    const log = high > 8 * low;
    const pad = (high - low || high) * 0.06;
    const across = log ? [low / 1.15, high * 1.15] : [Math.max(0, low - pad), high + pad];
    const ends = all.flatMap(({ test, spread }) => [test - (spread ?? 0), test + (spread ?? 0)]).concat(0);
    const room = (Math.max(...ends) - Math.min(...ends)) * 0.08 || 1;
    const up = [Math.min(...ends) - room, Math.max(...ends) + room];
    const [x, y] = [page.scale(across, [left, right], log), page.scale(up, [bottom, top])];
    const words = `Δ_MTL on test against ${data.axes[state.axis]}, ${data.points.length} networks; the arrow keys walk from the cheapest to the dearest`;
    chart.replaceChildren();
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": words }, chart);
    const text = (x, y, words, attributes = {}) => svg("text", { x, y, "font-size": 11, "text-anchor": "middle", ...attributes }, picture, words);
    const beyond = Math.min(right, x(state.budget));
    svg("rect", { x: beyond, y: top, width: right - beyond, height: bottom - top, style: "fill:var(--soft)" }, picture);
    for (const value of page.ticks(...up, 6)) {
      svg("line", { x1: left, x2: right, y1: y(value), y2: y(value), style: `stroke:var(${value ? "--line" : "--ink"})` }, picture);
      text(left - 6, y(value) + 4, String(value).replace("-", "−"), { "text-anchor": "end" });
    }
    for (const value of log ? decades(across) : page.ticks(...across, width < 560 ? 4 : 8)) {
      svg("line", { x1: x(value), x2: x(value), y1: bottom, y2: bottom + 5, style: "stroke:var(--muted)" }, picture);
      text(x(value), bottom + 18, state.axis === "seconds" ? value.toLocaleString("en") : value >= 1e9 ? `${value / 1e9} G` : `${Number((value / 1e6).toPrecision(3))} M`);
    }
    text((left + right) / 2, height - 6, data.axes[state.axis], { "font-size": 12 });
    text(12, (top + bottom) / 2, "Δ_MTL on test, %", { "font-size": 12, transform: `rotate(-90 12 ${(top + bottom) / 2})` });
    svg("line", { x1: beyond, x2: beyond, y1: top, y2: bottom, "stroke-width": 2, style: "stroke:var(--accent)" }, picture);
    return { picture, x, y, width, text };
  }

  function decades([low, high]) {
    const first = Math.floor(Math.log10(low));
    const powers = Array.from({ length: Math.ceil(Math.log10(high)) - first + 1 }, (_, step) => 10 ** (first + step));
    return powers.flatMap((power) => [power, 2 * power, 5 * power]).filter((value) => value >= low && value <= high);
  }

  function dot({ picture, x, y, width, text }, point, onFront, rank) {
    const [px, py] = [x(cost(point)), y(point.test)];
    const label = `${point.label}: ${amount(cost(point))}, Δ_MTL ${delta(point)}${onFront ? ", on the front" : ""}`;
    const node = svg("a", { href: page.link(point.jobs[0]), class: "point", "aria-label": label }, picture);
    svg("circle", { cx: px, cy: py, r: 12, fill: "transparent" }, node);
    if (point.spread !== null) svg("path", { d: `M${px},${y(point.test - point.spread)}V${y(point.test + point.spread)}`, style: "stroke:var(--muted)" }, node);
    svg("path", { d: sign(point.group), transform: `translate(${px},${py})`, "stroke-width": 1.5, style: onFront ? FULL : HOLLOW }, node);
    if (rank >= 0) {
      svg("circle", { cx: px, cy: py, r: 10, fill: "none", "stroke-width": 2, "stroke-dasharray": rank ? "3 3" : null, style: "stroke:var(--accent)" }, node);
      const turned = px > 0.65 * width;
      node.append(text(px + (turned ? -14 : 14), py + (rank ? 17 : -9), page.short(point.label, 26), { "text-anchor": turned ? "end" : "start", "font-size": 12, "font-weight": rank ? 400 : 700, class: "halo" }));
    }
    return page.tip(node, () => card(point));
  }

  function paper({ picture, x, y }, { label, source, test, ...costs }) {
    const node = svg("g", { role: "img", "aria-label": `${label}, as printed in ${source}: Δ_MTL ${page.percent(test)} %` }, picture);
    svg("path", { d: HEXAGON, transform: `translate(${x(cost(costs))},${y(test)})`, style: "fill:none;stroke:var(--caution)", "stroke-width": 1.5 }, node);
    page.tip(node, () => page.lines(`${label}, paper`, `Δ_MTL ${page.percent(test)} %, ${amount(cost(costs))}`, source));
  }

  page.fit(root, (width) => {
    state.width = width;
    if (place.firstChild) draw();
    else slide();
  });
});
