"use strict";
// What interactive figures are made with. Each file of widgets/ holds one call of
//   coppice.widget("<kind>", (root, data, page) => { ... })
// which fills `root`, an empty <div>, from the figure's data. Where that fails, the static picture stands in its place.
//
//   page.colours                  task -> its colour in all figures
//   page.svg(tag, attributes, parent, text?), page.html(...)    a new element, appended; attributes of null are left out
//   page.write(node, text)        its text anew, with Δ_MTL as in the tables
//   page.link(job)                where a job's run is shown: in MLflow, or else in the table of this page
//   page.tip(element, () => Node or string)                     shown on hover, focus and touch; makes it focusable
//   page.slider(parent, {label, values or min, max, step, value, text}, onInput)
//                                 a labelled <input type=range>; onInput(value) at each move, not at the start
//   page.choice(parent, {label, options: [[value, text], ...], value}, onChoice)    buttons of which one is pressed
//   page.arrows(rows, turned?)    elements in rows, or in columns, as one stop of the Tab key, walked with the arrow keys
//   page.fit(root, draw)          calls draw(width in pixels) now and when the width changes
//   page.number(x), page.percent(x), page.count(x), page.short(text, length)    as in the tables
//   page.scale([from, to], [from, to], log?) -> function; page.ticks(low, high, count) -> round values
const coppice = (() => {
  const NAMES = { svg: "http://www.w3.org/2000/svg", html: "http://www.w3.org/1999/xhtml" };
  let made = 0;

  const element = (kind) => (tag, attributes = {}, parent = null, text = null) => {
    const node = document.createElementNS(NAMES[kind], tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    if (text !== null) write(node, text);
    parent?.append(node);
    return node;
  };
  const svg = element("svg");
  const html = element("html");

  const BEFORE_UNIT = /(?<=\d) (?=%|(?:[kMG]|s|min|h)\b)/g;
  // A text in which Δ_MTL has its index, as in the tables, and no line ends between a number and its unit.
  function write(node, text) {
    const [first, ...rest] = String(text).replace(BEFORE_UNIT, "\u00a0").split("Δ_MTL");
    node.textContent = first;
    for (const part of rest) {
      node.append("Δ");
      if (node.namespaceURI === NAMES.html) html("sub", {}, node, "MTL");
      else svg("tspan", { dy: "0.25em", "font-size": "75%" }, node, "MTL");
      // What follows an index in a picture goes back up to the line.
      if (node.namespaceURI === NAMES.html) node.append(part);
      else if (part) svg("tspan", { dy: "-0.19em" }, node, part);
    }
  }

  const minus = (text) => text.replace(/^-/, "−");
  const general = (x) => {
    const [mantissa, power] = x.toExponential(2).split("e").map(Number);
    if (power >= -4 && power < 3) return String(Number(x.toPrecision(3)));
    return `${mantissa}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
  };
  const number = (x) => {
    if (x === null || !Number.isFinite(x)) return "–";
    return minus(x === 0 || (Math.abs(x) >= 1e-2 && Math.abs(x) < 1000) ? x.toFixed(3) : general(x));
  };
  const percent = (x) => {
    if (x === null || !Number.isFinite(x)) return "–";
    const text = x.toFixed(1);
    return Number(text) === 0 ? "0.0" : minus(x > 0 ? `+${text}` : text);
  };
  const count = (x) => {
    if (x === null || !Number.isFinite(x)) return "–";
    const [unit, name] = x >= 1e9 ? [1e9, "G"] : x >= 1e4 ? [1e6, "M"] : [1e3, "k"];
    return `${(x / unit).toFixed(2)} ${name}`;
  };
  const short = (text, length = 18) => {
    const letters = Array.from(text);
    return letters.length <= length ? text : `${letters.slice(0, length - 1).join("")}…`;
  };

  function scale([low, high], [start, end], log = false) {
    const [from, to] = log ? [Math.log(low), Math.log(high)] : [low, high];
    return (x) => (to === from ? (start + end) / 2 : start + (((log ? Math.log(x) : x) - from) / (to - from)) * (end - start));
  }

  function ticks(low, high, wanted = 5) {
    if (!(high > low)) return [low];
    const raw = (high - low) / Math.max(1, wanted);
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
    const first = Math.ceil(low / step - 1e-9);
    const last = Math.floor(high / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
  }

  // One tooltip for the page: it can be pointed at, stays while it is, and goes with Escape.
  let box = null;
  let owner = null;
  let leaving = 0;

  function hide() {
    owner?.removeAttribute("aria-describedby");
    if (box) box.hidden = true;
    owner = null;
  }

  function show(target, content) {
    clearTimeout(leaving);
    if (!box) {
      box = html("div", { id: "tip", role: "tooltip" }, document.body);
      box.addEventListener("pointerenter", () => clearTimeout(leaving));
      box.addEventListener("pointerleave", leave);
    }
    if (owner !== target) {
      hide();
      owner = target;
      box.replaceChildren(content());
      target.setAttribute("aria-describedby", "tip");
    }
    box.hidden = false;
    place();
  }

  function place() {
    const [at, own] = [owner.getBoundingClientRect(), box.getBoundingClientRect()];
    const left = Math.min(at.left + at.width / 2 + 12, innerWidth - own.width - 8);
    const below = at.bottom + 10 + own.height <= innerHeight || at.top < own.height + 10;
    box.style.left = `${Math.max(8, left)}px`;
    box.style.top = `${below ? at.bottom + 10 : at.top - own.height - 10}px`;
  }

  function leave() {
    clearTimeout(leaving);
    leaving = setTimeout(hide, 150);
  }

  function tip(target, content) {
    if (target.tabIndex < 0 && !target.hasAttribute("tabindex")) target.setAttribute("tabindex", "0");
    let fresh = false; // a link's first touch shows, the second one follows it
    target.addEventListener("pointerenter", (event) => {
      fresh = event.pointerType === "touch" && owner !== target;
      show(target, content);
    });
    target.addEventListener("click", (event) => {
      if (fresh) event.preventDefault();
      fresh = false;
    });
    target.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && leave());
    target.addEventListener("focus", () => show(target, content));
    target.addEventListener("blur", leave);
    return target;
  }

  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  document.addEventListener("scroll", () => owner && (owner.isConnected ? place() : hide()), { capture: true, passive: true });
  document.addEventListener("pointerdown", (event) => {
    if (owner && !owner.contains(event.target) && !box.contains(event.target)) hide();
  });

  function slider(parent, { label, values = null, min = 0, max = 1, step = "any", value, text = String }, onInput) {
    const row = html("label", { class: "slider" }, parent);
    html("span", {}, row, label);
    const nearest = () => values.reduce((best, other, i) => (Math.abs(other - value) < Math.abs(values[best] - value) ? i : best), 0);
    const start = !values ? value ?? min : values.includes(value) ? values.indexOf(value) : nearest();
    const range = values ? { min: 0, max: values.length - 1, step: 1 } : { min, max, step };
    const input = html("input", { type: "range", ...range }, row);
    input.value = start;
    const output = html("output", { "aria-live": "polite" }, row);
    const current = () => (values ? values[Number(input.value)] : Number(input.value));
    const tell = () => {
      output.textContent = text(current());
      input.setAttribute("aria-valuetext", output.textContent);
    };
    tell();
    input.addEventListener("input", () => {
      tell();
      onInput(current());
    });
    return input;
  }

  function choice(parent, { label, options, value }, onChoice) {
    const group = html("div", { class: "choice", role: "group", "aria-label": label }, parent);
    html("span", { "aria-hidden": "true" }, group, label);
    const buttons = options.map(([option, text]) => {
      const button = html("button", { type: "button", "aria-pressed": String(option === value) }, group, text);
      button.addEventListener("click", () => {
        buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
        onChoice(option);
      });
      return button;
    });
    return group;
  }

  function arrows(rows, turned = false) {
    const all = rows.flat();
    all.forEach((node, index) => node.setAttribute("tabindex", index ? "-1" : "0"));
    const [along, back, next, before] = turned ? ["Down", "Up", "Right", "Left"] : ["Right", "Left", "Down", "Up"];
    const steps = { [`Arrow${along}`]: [0, 1], [`Arrow${back}`]: [0, -1], [`Arrow${next}`]: [1, 0], [`Arrow${before}`]: [-1, 0] };
    rows.forEach((row, r) => row.forEach((node, c) => node.addEventListener("keydown", (event) => {
      const [down, right] = steps[event.key] ?? [];
      if (down === undefined) return;
      const line = rows[r + down];
      const next = line?.[Math.min(c + right, down ? line.length - 1 : Infinity)];
      event.preventDefault();
      if (!next) return;
      all.forEach((other) => other.setAttribute("tabindex", other === next ? "0" : "-1"));
      next.focus();
    })));
  }

  function fit(root, draw) {
    let width = 0;
    const redraw = () => {
      const now = Math.round(root.clientWidth);
      if (now && now !== width) draw((width = now));
    };
    new ResizeObserver(redraw).observe(root);
    redraw();
  }

  const { colours, links } = JSON.parse(document.getElementById("page-data").textContent);
  const link = (job) => links[job] ?? `#job-${encodeURIComponent(job)}`;
  const page = { colours, link, svg, html, write, tip, slider, choice, arrows, fit, number, percent, count, short, scale, ticks };

  function widget(kind, fill) {
    for (const host of document.querySelectorAll(`.widget[data-kind="${kind}"]`)) {
      const root = html("div", { class: "drawn", id: `widget-${(made += 1)}` }, host);
      try {
        fill(root, JSON.parse(host.querySelector("script").textContent), page);
      } catch (error) {
        console.error(`figure ${kind}:`, error);
        root.innerHTML = host.querySelector("noscript").textContent;
      }
    }
  }

  return { widget, page };
})();
