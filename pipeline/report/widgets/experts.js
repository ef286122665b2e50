"use strict";
// How data sets, or new tasks, use the experts of each layer, and what is left of them where experts below a share of
// use are pruned: as in training, at least as many as a token gets.
coppice.widget("experts", (root, data, page) => {
  const { layers, rows, uses } = data;
  const every = uses.flatMap(({ shares }) => shares.flat(2));
  const most = Math.max(...every);
  const state = { use: data.at, below: 0 };
  const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;

  const controls = page.html("div", { class: "controls" }, root);
  if (uses.length > 1) {
    const options = uses.map(({ label }, index) => [String(index), label]);
    page.choice(controls, { label: "network", options, value: String(data.at) }, (index) => {
      state.use = Number(index);
      draw();
    });
  }
  const step = 0.005;
  page.slider(controls, { label: "prune experts used for less than", min: 0, max: Math.ceil(most / step) * step, step, value: 0, text: (below) => `${percent(below, 1)} of a ${data.row}'s choices` }, (below) => {
    state.below = below;
    draw();
  });
  const sums = page.html("div", { class: "scroll" }, root);
  const maps = page.html("div", { class: "maps" }, root);
  const colour = (share) => page.mix("var(--heat)", 0.04 + 0.71 * (share / most));
  const even = 1 / Math.max(...layers.map(({ experts }) => experts));
  page.bar(root, { label: `share of a ${data.row}'s choices`, fill: (at) => colour(at * most), ticks: [[0, "0"], [even / most, `${percent(even)}, even`], [1, percent(most)]] });
  page.legend(root, [
    [(sign) => page.svg("text", { x: 7, y: 12, "text-anchor": "middle", "font-size": 12, "font-weight": 700 }, sign, "3"), `at least two ${data.row}s give the expert its even share or more`],
    [(sign) => page.svg("rect", { width: 14, height: 14, fill: page.hatch(sign) }, sign), "pruned"],
  ]);

  // Ordered by the row that uses an expert most, then by how much.
  function order(shares) {
    const peak = (e) => shares.reduce((best, row, r) => (row[e] > shares[best][e] ? r : best), 0);
    return shares[0].map((_, e) => e).sort((a, b) => peak(a) - peak(b) || shares[peak(b)][b] - shares[peak(a)][a]);
  }

  function left(row, topK) {
    const ranked = row.map((_, e) => e).sort((a, b) => row[b] - row[a] || a - b);
    const over = row.filter((share) => share >= state.below).length;
    return new Set(ranked.slice(0, Math.max(topK, over)));
  }

  function draw() {
    const use = uses[state.use];
    const kept = layers.map((layer, l) => use.shares[l].map((row) => left(row, layer.top_k)));
    total(use, kept);
    maps.replaceChildren();
    layers.forEach((layer, l) => map(use, layer, l, kept[l]));
  }

  function total(use, kept) {
    sums.replaceChildren();
    const table = page.html("table", { class: "tall" }, sums);
    page.html("caption", {}, table, `${use.label}: ${state.below ? `without experts used for less than ${percent(state.below, 1)}` : "all experts"}`);
    const head = page.html("tr", {}, page.html("thead", {}, table));
    for (const text of ["", "experts kept", "of", "weights kept", "of", "share"]) page.html("th", { scope: "col" }, head, text);
    const body = page.html("tbody", {}, table);
    const weight = (counts) => counts.reduce((sum, n, l) => sum + n * layers[l].weights, 0);
    const all = layers.map(({ experts }) => experts);
    rows.forEach((name, r) => {
      const counts = kept.map((layer) => layer[r].size);
      const line = page.html("tr", {}, body);
      const [n, of] = [counts, all].map((list) => list.reduce((a, b) => a + b, 0));
      page.html("th", { scope: "row" }, line, name);
      for (const text of [n, of, page.count(weight(counts)), page.count(weight(all)), percent(weight(counts) / weight(all), 1)]) page.html("td", {}, line, text);
    });
  }

  function map(use, layer, l, kept) {
    const shares = use.shares[l];
    const columns = order(shares);
    const level = 1 / shares[0].length;
    const shared = (e) => shares.filter((row) => row[e] >= level).length;
    const part = page.html("div", { class: "map" }, maps);
    page.html("b", {}, part, layer.name);
    const told = use.information.length ? `${use.information[l].toFixed(2)} of at most ${data.most.toFixed(2)} nats told of the data set` : `location ${layer.location}`;
    page.html("small", {}, part, told);
    const grid = page.grid(page.html("div", { class: "scroll" }, part), {
      label: `${layer.name}: share of each ${data.row}'s choices by expert; ${told}`,
      rows,
      columns: columns.map(String),
      size: [columns.length > 24 ? 15 : 20, 22],
      bold: (c) => shared(columns[c]) > 1,
      fill: (r, c) => colour(shares[r][columns[c]]),
      tip: (r, c) => [
        `${rows[r]}: expert ${columns[c]}`,
        `${percent(shares[r][columns[c]], 1)} of its choices; even use is ${percent(level, 1)}`,
        shared(columns[c]) > 1 && `${shared(columns[c])} ${data.row}s give it their even share or more`,
        !kept[r].has(columns[c]) && "pruned",
      ],
    });
    const over = page.svg("g", { "pointer-events": "none", "aria-hidden": "true" }, grid.svg);
    const lines = page.hatch(grid.svg);
    columns.forEach((e, c) => {
      rows.forEach((_, r) => {
        if (kept[r].has(e)) return;
        page.svg("rect", { ...grid.box(r, c), style: "fill:var(--paper)" }, over);
        page.svg("rect", { ...grid.box(r, c), fill: lines, opacity: 0.55 }, over);
      });
    });
  }

  draw();
});
