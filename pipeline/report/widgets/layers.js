"use strict";
// TAPS: a row for each task, a column for each gated layer, stronger the higher the gate's score; a layer that is the
// task's own fills its cell, a shared one is a thin line. The last row names what kind of layer it is.
coppice.widget("layers", (root, data, page) => {
  const { layers, lams, tasks, threshold } = data;
  const kinds = [...new Set(layers.map((layer) => layer.kind))];
  const most = Math.max(threshold, ...tasks.flatMap(({ runs }) => runs.flatMap(({ scores }) => scores)));
  // A place on the scale of scores: a quarter of it up to τ, and from there on by powers, for few layers have high scores.
  const place = (score) => (score < threshold ? (0.25 * Math.max(0, score)) / threshold : 0.25 + 0.75 * above(score));
  const above = most > threshold ? page.scale([threshold, most], [0, 1], true) : () => 1;
  const state = { at: 0 };
  let width = 0;
  const stops = [0, ...lams.map((_, index) => index + 1)];
  const word = (at) => (at ? `λ = ${lams[at - 1]}` : "for each task the one that validation chose");

  const controls = page.html("div", { class: "controls" }, root);
  page.slider(controls, { label: "λ", values: stops, value: 0, text: word }, (at) => {
    state.at = at;
    draw();
  });
  const scroll = page.html("div", { class: "scroll" }, root);
  const table = page.html("table", { class: "tall" }, page.html("div", { class: "scroll" }, root));
  const colour = (name, at) => page.mix(page.colours[name], at < 0.25 ? at : 0.4 + 0.8 * (at - 0.25), "var(--line)");
  page.bar(root, {
    label: "score of the gate",
    fill: (at) => colour(tasks[0].name, at),
    ticks: [[0, "0"], [0.25, `τ = ${threshold}`], [0.625, Math.sqrt(threshold * most).toFixed(2)], [1, most.toFixed(2)]],
  });
  page.legend(root, [
    [(sign) => page.svg("rect", { x: 1, y: 1, width: 12, height: 12, rx: 2, style: "fill:var(--muted)" }, sign), "the task's own: score ≥ τ"],
    [(sign) => page.svg("rect", { x: 1, y: 5, width: 12, height: 4, style: "fill:var(--muted)" }, sign), "shared with the base network"],
    ...kinds.map((kind) => [(sign) => page.svg("text", { x: 7, y: 11, "text-anchor": "middle", "font-size": 11 }, sign, letter(kind)), kind]),
  ]);

  const run = ({ runs }) => runs.find((one) => (state.at ? one.lam === lams[state.at - 1] : one.chosen));
  const share = (value) => (value === null ? "–" : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`);

  // A letter that no other kind has.
  function letter(kind) {
    const letters = { convolution: "c", downsampling: "d", "queries, keys, values": "q", projection: "p", MLP: "m", linear: "l" };
    return letters[kind];
  }

  function about(r, c) {
    const [layer, one] = [layers[c], run(tasks[r])];
    if (!one) return [tasks[r].name, "no run at this λ"];
    return [
      `${tasks[r].name}: ${layer.name}`,
      `${layer.kind}, ${layer.params.toLocaleString("en")} weights, location ${layer.location}`,
      `score ${page.number(one.scores[c])} at λ = ${one.lam}: ${one.active[c] ? "its own" : "shared with the base network"}`,
    ];
  }

  function draw() {
    const size = [Math.max(11, Math.min(30, (width - 130) / layers.length)), tasks.length > 12 ? 16 : 24];
    scroll.replaceChildren();
    const grid = page.grid(scroll, {
      label: `layers of each task's own, ${word(state.at)}`,
      rows: tasks.map(({ name }) => name),
      columns: layers.map(({ name }) => name),
      size,
      named: false,
      room: [12, 4, 36],
      fill: (r, c) => (run(tasks[r]) ? colour(tasks[r].name, place(run(tasks[r]).scores[c])) : null),
      high: (r, c) => (run(tasks[r])?.active[c] ? 1 : 0.22),
      tip: about,
    });
    frame(grid, size);
    sums();
  }

  // Below: kinds of layers, and where the locations end.
  function frame(grid, [w, h]) {
    const text = { "text-anchor": "middle", style: "fill:var(--muted)" };
    layers.forEach((layer, c) => {
      const { x, y } = grid.box(tasks.length, c);
      page.svg("text", { ...text, x: x + w / 2, y: y + 12, "font-size": 10 }, grid.svg, letter(layer.kind));
      const first = c === 0 || layers[c - 1].location !== layer.location;
      if (first && c) page.svg("line", { x1: x, x2: x, y1: 14, y2: y + 30, style: "stroke:var(--ink)", "stroke-dasharray": "2 2" }, grid.svg);
      const span = layers.filter(({ location }) => location === layer.location).length;
      const words = w * span > 74 ? `location ${layer.location}` : layer.location;
      if (first) page.svg("text", { ...text, x: x + (w * span) / 2, y: y + 27, "font-size": 10 }, grid.svg, words);
    });
  }

  // Below: how many layers and parameters are a task's own, and what it reaches.
  function sums() {
    table.replaceChildren();
    const head = page.html("tr", {}, page.html("thead", {}, table));
    for (const text of ["", "layers of its own", "additional parameters", "on test", "λ"]) page.html("th", { scope: "col" }, head, text);
    const body = page.html("tbody", {}, table);
    for (const task of tasks) {
      const one = run(task);
      const line = page.html("tr", {}, body);
      const texts = one ? [`${one.active.filter(Boolean).length} of ${layers.length}, ${share(one.layers_share)}`, share(one.params_share), `${page.number(one.test)} ${task.metric}`, String(one.lam)] : ["–", "–", "–", "–"];
      page.html("th", { scope: "row" }, line, task.name);
      for (const text of texts) page.html("td", {}, line, text);
    }
  }

  page.fit(root, (now) => {
    width = now;
    draw();
  });
});
