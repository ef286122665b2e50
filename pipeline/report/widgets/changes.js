"use strict";
// Each task's relative change under each network: who pays for the mean. Bars to the left, with a ▼ and slanting lines,
// are negative transfer.
coppice.widget("changes", (root, data, page) => {
  const { tasks, networks } = data;
  const ROW = tasks.length > 12 ? 16 : 22;
  const all = networks.flatMap(({ changes }) => changes);
  const worse = ({ mean }) => mean !== null && Number(mean.toFixed(1)) < 0; // as shown
  const short = (name) => page.short(name, 24);
  const spread = ({ mean, spread: deviation }) => [(mean ?? 0) - (deviation ?? 0), (mean ?? 0) + (deviation ?? 0)];
  const ends = all.flatMap(spread);
  const [least, most] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  const state = { by: "network", sort: "study" };

  const controls = page.html("div", { class: "controls" }, root);
  page.choice(controls, { label: "a panel for each", options: [["network", "network"], ["task", "task"]], value: "network" }, (by) => set({ by }));
  page.choice(controls, { label: "order", options: [["study", "as in the study"], ["change", "worst first"]], value: "study" }, (sort) => set({ sort }));
  const words = page.html("p", { class: "small", "aria-live": "polite" }, root);
  const panels = page.html("div", { class: "maps" }, root);
  page.legend(root, [
    [(sign) => page.svg("rect", { width: 14, height: 14, fill: page.hatch(sign) }, sign), "▼ worse than the task alone"],
    [(sign) => page.svg("line", { x1: 7, x2: 7, y1: 0, y2: 14, style: "stroke:var(--ink)", "stroke-dasharray": "3 2" }, sign), "the mean of a network's tasks, Δ_MTL"],
    ...(all.some((change) => change.spread !== null) ? [[(sign) => page.svg("path", { d: "M1,7H13M1,4V10M13,4V10", style: "stroke:var(--ink);fill:none" }, sign), "± one deviation over seeds"]] : []),
  ]);

  function set(change) {
    Object.assign(state, change);
    draw();
  }

  // A panel: its title, the mean where it is a network's, and for each bar a name, a colour and the change.
  function panelsOf() {
    if (state.by === "network") {
      return networks.map(({ label, delta, changes }) => ({ title: `${label}: mean ${page.percent(delta)} %`, mean: delta, bars: changes.map((change, t) => ({ name: tasks[t], other: label, colour: page.colours[tasks[t]], change })) }));
    }
    return tasks.map((task, t) => ({ title: task, mean: null, bars: networks.map(({ label, changes }) => ({ name: label, other: task, colour: page.colours[task], change: changes[t] })) }));
  }

  function draw() {
    panels.replaceChildren();
    const losers = networks.map(({ label, changes }) => [label, changes.filter(worse).length]);
    words.textContent = `Tasks that are worse than alone, of ${tasks.length}: ${losers.map(([label, count]) => `${label} ${count}`).join(", ")}.`;
    const found = panelsOf();
    const columns = Math.max(1, Math.min(found.length, Math.floor(width / (state.by === "network" ? 320 : 300))));
    for (const panel of found) bars(panel, Math.max(280, Math.floor((width - 18 * (columns - 1)) / columns)));
  }

  function bars({ title, mean, bars: given }, across) {
    const sorted = state.sort === "change" ? [...given].sort((a, b) => (a.change.mean ?? 0) - (b.change.mean ?? 0)) : given;
    const left = 10 + 6.3 * Math.max(...given.map(({ name }) => short(name).length));
    const x = page.scale([least, most === least ? 1 : most], [left + (least < 0 ? 48 : 2), across - 48]);
    const down = 24 + ROW * sorted.length + 22;
    const picture = page.svg("svg", { width: across, height: down, viewBox: `0 0 ${across} ${down}`, role: "group", "aria-label": `${title}: change against the single-task network` }, panels);
    page.svg("text", { x: 2, y: 13, "font-size": 12, "font-weight": 600 }, picture, page.short(title, Math.floor(across / 6.6)));
    const lines = page.hatch(picture);
    for (const value of page.ticks(least, most, 4)) {
      page.svg("line", { x1: x(value), x2: x(value), y1: 22, y2: down - 20, style: "stroke:var(--line)" }, picture);
      page.svg("text", { x: x(value), y: down - 6, "text-anchor": "middle", "font-size": 10, style: "fill:var(--muted)" }, picture, String(value).replace("-", "−"));
    }
    const rule = (value, dashes) => page.svg("line", { x1: x(value), x2: x(value), y1: 20, y2: down - 20, style: "stroke:var(--ink)", "stroke-dasharray": dashes }, picture);
    if (mean !== null) rule(mean, "3 2");
    page.arrows(sorted.map((bar, place) => [barOf(picture, lines, bar, 24 + ROW * (place + 0.5), left, x)]));
    rule(0, null);
  }

  function barOf(picture, lines, { name, other, colour, change }, y, left, x) {
    const value = change.mean ?? 0;
    const [start, end] = [Math.min(x(0), x(value)), Math.max(x(0), x(value))];
    const [low, high] = spread(change).map(x);
    const text = `${page.percent(change.mean)} %`;
    const node = page.svg("g", { class: "cell", role: "img" }, picture);
    page.svg("rect", { x: 0, y: y - ROW / 2, width: x(0), height: ROW, style: "fill:transparent;stroke:none" }, node);
    page.svg("text", { x: left - 6, y, "text-anchor": "end", "dominant-baseline": "central", "font-size": ROW > 20 ? 11 : 10 }, node, short(name));
    const box = { x: start, y: y - ROW / 2 + 3, width: Math.max(1, end - start), height: ROW - 6 };
    page.svg("rect", { ...box, style: `fill:${colour}` }, node);
    if (worse(change)) page.svg("rect", { ...box, fill: lines, opacity: 0.35 }, node);
    if (change.spread) page.svg("path", { d: `M${low},${y}H${high}M${low},${y - 3}V${y + 3}M${high},${y - 3}V${y + 3}`, style: "stroke:var(--ink);fill:none" }, node);
    const side = value < 0 ? { x: Math.min(low, start) - 4, "text-anchor": "end" } : { x: Math.max(high, end) + 4 };
    page.svg("text", { ...side, y, "dominant-baseline": "central", "font-size": 10, class: "halo" }, node, worse(change) ? `▼ ${page.percent(value)}` : page.percent(value));
    return page.told(node, () => [name, other, `${text} against its single-task network on test`, change.spread !== null && `± ${change.spread.toFixed(1)} over seeds`, worse(change) && "negative transfer"]);
  }

  let width = 0;
  page.fit(root, (now) => {
    width = now;
    draw();
  });
});
