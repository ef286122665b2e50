"use strict";
// Heat maps for the figures of widgets/, added to `page`:
//
//   page.mix(colour, share, on?)      a CSS colour: that share of one colour on another, or on the paper
//   page.grid(parent, {label, rows, columns, size: [w, h], fill(r, c), tip(r, c), ...})
//       an <svg> of cells with names beside the rows and above the columns; a cell whose fill is null is left out.
//       One stop of the Tab key, walked with the arrow keys. `tip` gives lines of text. Further: words(r, c), lines that
//       stand in the cell; high(r, c), the share of its height that it fills; bold(c), for a column's name; named: false
//       leaves these names out; room: [top, right, bottom], for more.
//       Gives {svg, box(r, c)}, with which marks can be laid over the cells.
//   page.hatch(svg)                   the address of a pattern of slanting lines
//   page.bar(parent, {label, fill(share), ticks: [[share, text], ...]})      a scale bar
//   page.legend(parent, [[draw(svg), text], ...])                            signs of 14 pixels and what they mean
//   page.lines(...)                   texts -> the content of a tooltip, the first in bold; empty ones are left out
//   page.told(element, () => [text, ...])    a tooltip of such lines, which also name the element
Object.assign(coppice.page, (() => {
  const { svg, html, tip, arrows, short, colours } = coppice.page;
  const LETTER = 6.3; // width of a letter of 11 pixels
  let patterns = 0;

  const mix = (colour, share, on = "var(--paper)") => `color-mix(in oklab, ${colour} ${(100 * share).toFixed(1)}%, ${on})`;
  const lines = (...texts) => {
    const box = html("div");
    texts.filter(Boolean).forEach((text, index) => html(index ? "div" : "b", {}, box, text));
    return box;
  };
  const told = (node, texts) => {
    node.setAttribute("aria-label", texts().filter(Boolean).join(", "));
    return tip(node, () => lines(...texts()));
  };
  const width = (names, letter = LETTER) => letter * Math.max(0, ...names.map((name) => name.length));

  function grid(parent, { label, rows, columns, size: [w, h], fill, tip: content, words = () => null, high = () => 1, bold = () => false, named = true, room = [0, 0, 0] }) {
    const type = Math.min(11, Math.max(8, h - 4));
    const [beside, above] = [rows.map((name) => short(name, 20)), columns.map((name) => short(name, 20))];
    const dotted = rows.some((name) => colours[name]);
    const left = width(beside, LETTER * (type / 11)) + (dotted ? 18 : 8);
    const turned = named && width(above) > w - 4;
    const angle = w < 20 ? 65 : 55; // steeper where columns are narrow
    const [rise, reach] = [Math.sin, Math.cos].map((part) => part((angle * Math.PI) / 180));
    const top = room[0] + (!named ? 4 : turned ? rise * width(above, LETTER * (type / 11)) + 12 : 18);
    const right = room[1] + (turned ? reach * width(above.slice(-1)) : 2);
    const [across, down] = [left + columns.length * w + right, top + rows.length * h + 2 + room[2]];
    const root = svg("svg", { width: across, height: down, viewBox: `0 0 ${across} ${down}`, role: "group", "aria-label": label }, parent);
    const box = (r, c) => ({ x: left + c * w, y: top + r * h, width: w, height: h });
    rows.forEach((name, r) => {
      const y = top + (r + 0.5) * h;
      svg("text", { x: left - (colours[name] ? 14 : 5), y, "text-anchor": "end", "dominant-baseline": "central", "font-size": type }, root, beside[r]);
      if (colours[name]) svg("circle", { cx: left - 7, cy: y, r: 3.5, style: `fill:${colours[name]}` }, root);
    });
    columns.forEach((name, c) => {
      const [x, y] = [left + (c + 0.5) * w, top - 5];
      const place = turned ? { transform: `translate(${x},${y}) rotate(-${angle})` } : { x, y, "text-anchor": "middle" };
      if (named) svg("text", { ...place, "font-size": type, "font-weight": bold(c) ? 700 : 400 }, root, above[c]);
    });
    const group = svg("g", {}, root);
    const cells = rows.map((_, r) => columns.map((_, c) => {
      const colour = fill(r, c);
      return colour && cell(group, box(r, c), { colour, high: high(r, c), words: words(r, c) ?? [] }, () => content(r, c));
    }));
    arrows(cells.map((row) => row.filter(Boolean)).filter((row) => row.length));
    return { svg: root, box };
  }

  function cell(parent, { x, y, width: w, height: h }, { colour, high, words }, content) {
    const gap = Math.min(2, w / 8);
    const node = svg("g", { class: "cell", role: "img", tabindex: -1 }, parent);
    const tall = (h - gap) * high;
    svg("rect", { x: x + gap / 2, y: y + (h - tall) / 2, width: w - gap, height: tall, rx: gap, style: `fill:${colour}` }, node);
    if (high < 1) svg("rect", { x, y, width: w, height: h, style: "fill:transparent;stroke:none" }, node);
    words.forEach((text, index) => {
      const middle = y + h / 2 + (index - (words.length - 1) / 2) * 12;
      svg("text", { x: x + w / 2, y: middle, "text-anchor": "middle", "dominant-baseline": "central", "font-size": index ? 9 : 11 }, node, text);
    });
    return told(node, content);
  }

  function hatch(root) {
    const id = `hatch-${(patterns += 1)}`;
    const pattern = svg("pattern", { id, width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, svg("defs", {}, root));
    svg("line", { x1: 0, y1: 0, x2: 0, y2: 5, style: "stroke:var(--ink)", "stroke-width": 1.2 }, pattern);
    return `url(#${id})`;
  }

  function bar(parent, { label, fill, ticks }) {
    const [length, steps] = [220, 44];
    const box = html("div", { class: "scale" }, parent);
    html("span", {}, box, label);
    const root = svg("svg", { width: length + 60, height: 30, viewBox: `-30 0 ${length + 60} 30`, role: "img", "aria-label": `${label}: ${ticks.map(([, text]) => text).join(", ")}` }, box);
    for (let step = 0; step < steps; step += 1) {
      svg("rect", { x: (length * step) / steps, y: 1, width: length / steps + 0.5, height: 11, style: `fill:${fill((step + 0.5) / steps)}` }, root);
    }
    for (const [share, text] of ticks) {
      svg("line", { x1: length * share, x2: length * share, y1: 10, y2: 15, style: "stroke:var(--muted)" }, root);
      svg("text", { x: length * share, y: 26, "text-anchor": "middle", "font-size": 11 }, root, text);
    }
  }

  function legend(parent, items) {
    const box = html("div", { class: "legend" }, parent);
    for (const [draw, text] of items) {
      const item = html("span", {}, box);
      draw(svg("svg", { width: 14, height: 14, viewBox: "0 0 14 14", "aria-hidden": "true" }, item));
      html("div", {}, item, text);
    }
  }

  return { mix, lines, told, grid, hatch, bar, legend };
})());
